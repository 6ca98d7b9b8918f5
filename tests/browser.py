"""A real browser without a screen, for what users see in one: Chromium, over its DevTools pipe.

Debian and Ubuntu: the package `chromium`; elsewhere set $TFLEASE_TEST_BROWSER.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

DEADLINE = 120.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-breakpad", "--disable-crash-reporter", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--no-proxy-server", "--window-size=1400,1000",
    "--remote-debugging-pipe",
)  # fmt: skip

_TEXT = """
(function texts(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (['SCRIPT', 'STYLE', 'TEMPLATE'].includes(node.nodeName)) return '';
  const inside = [...node.childNodes, ...(node.shadowRoot ? [node.shadowRoot] : [])];
  return inside.map(texts).join(' ');
})(document.body)
"""
"""What the page says, web components included."""


class Browser:
    """One browser with one page."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="tflease-browser-")
        its_input, self._commands = os.pipe()
        self._answers, its_output = os.pipe()
        # Above the two numbers that they get.
        to_it, from_it = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (its_input, its_output))
        # It reads commands from descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{to_it} 4>&{from_it} {to_it}<&- {from_it}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *_OPTIONS, f"--user-data-dir={self._profile}"],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in (its_input, its_output, to_it, from_it):
            os.close(fd)
        self._number = 0
        self._unread = b""
        self._session: str | None = None
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
        except BaseException:
            self.close()
            raise

    def open(self, url: str) -> None:
        """Returns at once."""
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """What the page says now; "" while it loads."""
        result = self._call("Runtime.evaluate", expression=f"document.body ? {_TEXT} : ''")
        return " ".join(str(result["result"].get("value", "")).split())

    def wait_for(self, *texts: str) -> str:
        """Until the page says all of these; all that it says then."""
        deadline = time.monotonic() + DEADLINE
        while True:
            said = self.text()
            if all(each in said for each in texts):
                return said
            assert time.monotonic() < deadline, f"not on the page: {texts}. It says: {said[:2000]}"
            time.sleep(0.1)

    def close(self) -> None:
        """On return none of its processes is left."""
        below: list[psutil.Process] = []
        with suppress(psutil.Error):
            below = psutil.Process(self._process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for each in below:  # some are in sessions of their own
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(below, timeout=DEADLINE)
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = json.loads(self._next(deadline))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def _next(self, deadline: float) -> bytes:
        while b"\0" not in self._unread:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._answers], [], [], max(0.0, left))
            assert ready, "the browser does not answer"
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, f"the browser ended with {self._process.wait()}"
            self._unread += chunk
        message, _, self._unread = self._unread.partition(b"\0")
        return message


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Skips, and says why, where there is none."""
    named = os.environ.get("TFLEASE_TEST_BROWSER")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("needs a browser: install chromium, or set TFLEASE_TEST_BROWSER")
    started = Browser(found)
    yield started
    started.close()
