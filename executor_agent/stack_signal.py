"""A member's process answers the question where its threads stand. `stacks` asks.

Owns: two signals, and the thread that waits for one of them. The first is a question to Python: the
thread looks at the frames of all others while it holds the GIL, so that none of them moves. Where
native code does not give the GIL up, the second one has `faulthandler` write from within the
signal's handler. It could not be the only one: what it reads must stand still, and a process whose
threads run Python may crash in it (measured: after 91 such signals, among threads that come and go
without a pause).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from executor_agent.core.stacks import END, FILE, MAX_FRAMES, Answering, Frame, put
from executor_agent.processes import my_identity

# Far from both ends, where C libraries, runtimes and debuggers take theirs.
_CANDIDATES = range(signal.SIGRTMAX - 7, signal.SIGRTMIN + 7, -1)


def answer(directory: Path) -> None:
    """From now on this process answers, in a file of this directory. To be called by the main
    thread before it starts others: what is there already may be interrupted by a signal.

    Raises OSError, RuntimeError.
    """
    free = [each for each in _CANDIDATES if signal.getsignal(each) is signal.SIG_DFL]
    if len(free) < 2:
        raise OSError("no real-time signals are free")
    question, force = free[:2]
    # Complete before it has its name: who reads it may send a signal at once.
    path, temporary = directory / FILE, directory / f".{FILE}"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)  # open as long as we live
    # A thread that waits for it gets it. The handler is for the odd thread of user code that does
    # not block it, as all do that are started from here on: the signal's own action is death.
    signal.signal(question, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {question})
    faulthandler.register(force, file=descriptor, all_threads=True, chain=False)
    arguments = (question, path)
    threading.Thread(target=_run, args=arguments, name="tflease-stacks", daemon=True).start()
    # For that thread alone: of others it would end a sleep or a poll in native code early, and not
    # everybody who calls those looks whether it did.
    signal.pthread_sigmask(signal.SIG_BLOCK, {force})
    me, main_thread = my_identity(), threading.main_thread().ident or 0
    answering = Answering(me.pid, me.create_time, question, force, descriptor, main_thread)
    os.write(descriptor, answering.to_json().encode() + b"\n")
    os.rename(temporary, path)


def _run(question: int, path: Path) -> None:
    while True:
        signal.sigwait({question})
        try:
            with open(path, "ab", buffering=0) as file:
                file.write((_stacks() + END).encode(errors="replace"))
        except (OSError, RuntimeError) as error:
            print(f"tflease: warning: no stacks: {error}", file=sys.stderr)


def _stacks() -> str:
    frames = sys._current_frames()
    me, main = threading.get_ident(), threading.main_thread().ident
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    others = [
        (names.get(ident) or hex(ident), _of(frame))
        for ident, frame in frames.items()
        if ident not in (me, main)
    ]
    return put(_of(frames.get(main or 0)), others)


def _of(frame: FrameType | None) -> list[Frame]:
    found: list[Frame] = []
    while frame is not None and len(found) < MAX_FRAMES:
        code = frame.f_code
        found.append((code.co_filename, frame.f_lineno or 0, code.co_name))
        frame = frame.f_back
    return found
