"""A process that a nasty member leaves about: ``helper.py TAG FOLDER ROLE``.

A program of its own, so that the tag stands in its command line, where clearing the environment
does not remove it. It ignores what can be ignored and waits for ever. Standard library only.
"""

import os
import signal
import sys


def main(tag: str, folder: str, role: str) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if role == "leader":  # of a group that it leaves to its child
        os.setpgid(0, 0)
        if os.fork() != 0:
            os._exit(0)
        role = "leaderless"
    if role == "double":
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
    if role == "hidden":
        os.closerange(3, 4096)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.chdir("/")
    announce(folder, role)
    while True:
        signal.pause()


def announce(folder: str, role: str) -> None:
    with open(f"/proc/{os.getpid()}/stat") as file:
        started = file.read().rpartition(")")[2].split()[19]
    draft = os.path.join(folder, f".{role}")
    with open(draft, "w") as file:
        file.write(f"{os.getpid()} {started}")
    os.rename(draft, os.path.join(folder, f"{role}.pid"))


if __name__ == "__main__":
    main(*sys.argv[1:])
