"""A server that speaks S3's protocol, for tests: moto's server mode, on loopback.

    with ObjectStore() as store:
        store.put("s3://bucket/part-0", b"...")
        ctx.fetch("s3://bucket/part-*", storage_options=store.storage_options)

A process of its own, so that it can be killed. It keeps everything in memory: a store that has been
killed and started again on its port is empty.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_START_TIMEOUT = 60.0
_END_TIMEOUT = 10.0
_REQUEST_TIMEOUT = 30.0
_TRIES = 5  # of ports that somebody else took before the server did

ACCESS_KEY, SECRET_KEY = "testing", "testing"


class ObjectStore:
    """Starts when it is entered, or with `start`, and is gone after `stop`."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> ObjectStore:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the store is not running"
        return self._process.pid

    @property
    def storage_options(self) -> dict[str, Any]:
        """For fsspec and for everything that takes its `storage_options`."""
        return self.options_through(self.endpoint_url)

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are told nothing else: s3fs and botocore read these by themselves."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def options_through(self, endpoint_url: str) -> dict[str, Any]:
        """The same for an address that leads here, such as a proxy's."""
        return {
            "key": ACCESS_KEY,
            "secret": SECRET_KEY,
            "endpoint_url": endpoint_url,
        }

    def start(self) -> None:
        """True on return: it answers. Again on the same port if it ran before."""
        assert self._process is None, "the store is running"
        port, tries = self.port, 1 if self.port else _TRIES
        for attempt in range(tries):
            self.port = port or _free_port()
            if self._start():
                return
            said = self._said()
            self.stop()
            if attempt == tries - 1:
                raise RuntimeError(f"moto's server did not start on port {self.port}:\n{said}")

    def _start(self) -> bool:
        self._folder = self._folder or TemporaryDirectory(prefix="object-store-")
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._call("/moto-api/data.json")
                return self._process.poll() is None
            except OSError:
                time.sleep(0.02)
        return False

    def stop(self) -> None:
        """True on return: the process is gone, and what it kept with it. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_END_TIMEOUT)
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def clear(self) -> None:
        """No buckets, and nobody has to show credentials."""
        self._call("/moto-api/reset", method="POST")

    def demand_credentials(self) -> None:
        """From now on who shows keys that were never made here is refused: everybody, for none
        were. `allow_everybody` ends it."""
        self._call("/moto-api/reset-auth", b"0", method="POST")

    def allow_everybody(self) -> None:
        self._call("/moto-api/reset-auth", b"inf", method="POST")

    def put(self, url: str, data: bytes) -> None:
        """Makes the bucket, too. In one part: its ETag is the content's MD5."""
        self._file_system(url).pipe_file(url, data)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        for url, data in files.items():
            self.put(url, data)

    def get(self, url: str) -> bytes:
        data: bytes = self._file_system(url).cat_file(url)
        return data

    def names(self, url: str) -> list[str]:
        """All objects below `url`, as "bucket/key", sorted."""
        file_system = self._file_system(url)
        file_system.invalidate_cache()
        return sorted(file_system.find(url))

    def _file_system(self, url: str) -> Any:
        import fsspec

        file_system, path = fsspec.core.url_to_fs(url, **self.storage_options)
        bucket = path.split("/")[0]
        file_system.invalidate_cache()  # it may have seen the store before that was killed
        if not file_system.exists(bucket):
            file_system.mkdir(bucket)
        return file_system

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "server.log"

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-4000:] if self._folder else ""

    def _call(self, path: str, data: bytes | None = None, method: str = "GET") -> bytes:
        headers = {"Content-Type": "text/plain"}  # moto takes no other body as it is
        request = urllib.request.Request(self.endpoint_url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_REQUEST_TIMEOUT) as answer:
                answered: bytes = answer.read()
                return answered
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"moto's server says {error.code} to {path}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
