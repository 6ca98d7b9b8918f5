"""One connection of a feed: the handshake, frames, and Arrow streams between them.

1. On TCP: TLS, where the only certificate believed is the run's own. On Unix: same user.
2. The server's greeting: who it speaks as, and a nonce.
3. Both ends prove that they know the run's secret: frames ``{nonce, proof}`` and
   ``{proof, member}``. Nothing else is said or believed before that.
4. The client's hello, which says what the connection is for, and the server's reply to it.
   From there on the kind of connection decides.

A frame is 4 bytes of big-endian length and one JSON object.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_values import SERVER_NAME, FeedEndpoint, FeedKey
from executor_agent.feed.stream import ByteStream, SockFile, Waker

if TYPE_CHECKING:
    import pyarrow as pa

Message = dict[str, Any]

MAGIC = b"tflease-feed/1\n"

MAX_FRAME_BYTES = 1024 * 1024
HANDSHAKE_TIMEOUT = 10.0
DRAIN_TIMEOUT = 5.0

_MAX_STRANGERS_FRAME = 4096
_NONCE_BYTES = 32


class FeedUnreachable(OSError):
    """Nobody answers at that endpoint; the text says where and why."""


class FeedRefused(OSError):
    """Somebody answers, but not to us, or not as we ought to believe; the text says what."""


class Connection:
    """One end of a connection that has proved itself. One thread at a time uses it.

    Calls raise OSError when the connection has failed. ``reply``: the server's answer to the
    hello, at the client's end. ``is_local``: no network between the ends. ``member``: the server's.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._header = bytearray(4)
        self._frame = self._header
        self._filled = 0
        self.is_local = stream.is_local
        self.member = ""
        self.reply: Message = {}

    def send(self, message: Mapping[str, Any], timeout: float | None = None) -> None:
        """One frame. Raises ValueError when it is too long."""
        self._stream.write(memoryview(encode(message)), _deadline(timeout))

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next frame; None: the other end has closed. A TimeoutError loses nothing: the next
        call goes on where it came."""
        return self._receive(_deadline(timeout), MAX_FRAME_BYTES)

    def _receive(self, deadline: float | None, limit: int) -> Message | None:
        while True:
            while self._filled < len(self._frame):
                view = memoryview(self._frame)[self._filled :]
                count = self._stream.read_some(view, deadline)
                if not count:
                    if self._frame is self._header and not self._filled:
                        return None
                    raise ConnectionError("the connection ended in the middle of a message")
                self._filled += count
            self._filled = 0
            if self._frame is not self._header:
                body, self._frame = self._frame, self._header
                return _decode(body)
            size = int.from_bytes(self._header, "big")
            if not 0 < size <= limit:
                raise ConnectionError(
                    f"the other end announces a message of {size} bytes, over the limit of "
                    f"{limit}: it does not speak this protocol"
                )
            self._frame = bytearray(size)

    def is_readable(self) -> bool:
        """Whether there is something to read at once, the end included."""
        return self.wait_readable(0.0)

    def wait_readable(self, timeout: float | None = None) -> bool:
        return self._stream.wait_readable(_deadline(timeout))

    def wait_for_end(self) -> None:
        """Until the other end has closed, whatever it has sent before."""
        self._stream.wait_for_end()

    def fileno(self) -> int:
        """To poll; TLS may hold bytes back that no poll shows: ask ``is_readable`` first."""
        return self._stream.fileno()

    def listen_to(self, waker: Waker | None) -> None:
        """While it is set, whatever would wait on this connection raises Interrupted instead."""
        self._stream.waker = waker

    def writer(self, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        """An Arrow stream towards the other end. Closing it ends the stream, not the connection."""
        import pyarrow as pa

        return pa.ipc.new_stream(pa.PythonFile(SockFile(self._stream), mode="w"), schema)

    def reader(self) -> pa.RecordBatchStreamReader:
        """The other end's Arrow stream. Waits for its schema. An end between two batches looks
        like a proper one whether it was or not: only what is said after it counts."""
        import pyarrow as pa

        return pa.ipc.open_stream(pa.PythonFile(SockFile(self._stream), mode="r"))

    def finish(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Let the other end read all that was sent, then close. What it still sends is thrown away:
        closing on unread bytes would take our own last words from it."""
        deadline = time.monotonic() + timeout
        rubbish = memoryview(bytearray(1 << 16))
        try:
            self._stream.waker = None
            self._stream.end_writing()
            while self._stream.read_some(rubbish, deadline):
                if time.monotonic() > deadline:
                    break
        except OSError:
            pass  # it is gone, or was given its time
        finally:
            self.close()

    def abort(self) -> None:
        """Both ends see the end of the connection at once. From any thread."""
        self._stream.abort()

    def close(self) -> None:
        self._stream.close()


def encode(message: Mapping[str, Any], limit: int = MAX_FRAME_BYTES) -> bytes:
    """A frame. Raises ValueError when it is too long."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > limit:
        raise ValueError(f"a message of {len(body)} bytes is over the limit of {limit} bytes")
    return len(body).to_bytes(4, "big") + body


def _decode(body: bytearray) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConnectionError(f"the other end sent a message that is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise ConnectionError(f"the other end sent no object but {str(message)[:80]}")
    return message


# --- the client -----------------------------------------------------------------------------------


def dial(
    endpoint: FeedEndpoint,
    key: FeedKey,
    hello: Mapping[str, Any],
    *,
    timeout: float,
    boot_id: str = "",
) -> Connection:
    """One attempt to reach a member: by its Unix socket when ``boot_id``, this host's, is its own
    and the path leads there, else by TCP.

    Raises:
        FeedUnreachable: nobody answers there (yet).
        FeedRefused: somebody else answers, or he does not take us, or not this hello.
        ValueError: the hello is too long.
    """
    deadline = time.monotonic() + timeout
    problems: list[str] = []
    if endpoint.path and boot_id and endpoint.boot_id == boot_id:
        try:
            return _say_hello(
                _prove(_by_path(endpoint, deadline), endpoint, key, deadline), hello, deadline
            )
        except _HelloRefused:
            raise
        except OSError as error:  # another container may have other files under the same name
            problems.append(f"{endpoint.path}: {error}")
    where = f"{endpoint.host}:{endpoint.port}"
    try:
        stream = _by_network(endpoint, key, deadline)
        return _say_hello(_prove(stream, endpoint, key, deadline), hello, deadline)
    except FeedRefused as error:
        problems.append(f"{where}: {error}")
        raise FeedRefused(_unable(endpoint, problems)) from None
    except OSError as error:
        problems.append(f"{where}: {error}")
        raise FeedUnreachable(_unable(endpoint, problems)) from None


class _HelloRefused(FeedRefused):
    """The right server does not want this hello: no other way to it will change that."""


def _unable(endpoint: FeedEndpoint, problems: list[str]) -> str:
    return f"cannot reach the feed of {endpoint.member} ({'; '.join(problems)})"


def _by_path(endpoint: FeedEndpoint, deadline: float) -> ByteStream:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))  # a server that accepts nobody makes it wait
        sock.connect(endpoint.path)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", credentials)
        if user != os.getuid():  # he could pass on the proofs to the member, and read all between
            raise FeedRefused(f"the socket there is of another user ({user})")
    except OSError:
        sock.close()
        raise
    return ByteStream(sock)


def _by_network(endpoint: FeedEndpoint, key: FeedKey, deadline: float) -> ByteStream:
    address = (endpoint.host, endpoint.port)
    stream = ByteStream(socket.create_connection(address, _left(deadline)))
    try:
        stream.secure(_client_context(key), deadline, server_name=SERVER_NAME)
    except ssl.SSLCertVerificationError as error:
        stream.close()
        raise FeedRefused(f"what answers has another run's certificate ({error})") from None
    except ssl.SSLError as error:
        stream.close()
        raise FeedRefused(f"what answers is no feed of this run ({error})") from None
    except BaseException:
        stream.close()
        raise
    return stream


def _prove(stream: ByteStream, endpoint: FeedEndpoint, key: FeedKey, deadline: float) -> Connection:
    connection = Connection(stream)
    try:
        greeting = bytearray(len(MAGIC) + _NONCE_BYTES)
        count = stream.read_exactly(memoryview(greeting), deadline)
        if count < len(greeting) or not greeting.startswith(MAGIC):
            raise FeedRefused("what answers is no feed of this version")
        theirs, ours = bytes(greeting[len(MAGIC) :]), os.urandom(_NONCE_BYTES)
        proof = _proof(key, b"client", theirs, ours)
        stream.write(memoryview(encode({"nonce": ours.hex(), "proof": proof})), deadline)
        answer = connection._receive(deadline, _MAX_STRANGERS_FRAME)
        if answer is None:
            raise FeedRefused("it closed the connection: it serves another run, or is ending")
        if not _is_proved(answer.get("proof"), _proof(key, b"server", ours, theirs)):
            raise FeedRefused("what answers does not know this run's secret")
        if answer.get("member") != endpoint.member:
            raise FeedRefused(f"{answer.get('member')} answers there")
        connection.member = endpoint.member
    except BaseException:
        connection.close()
        raise
    return connection


def _say_hello(connection: Connection, hello: Mapping[str, Any], deadline: float) -> Connection:
    try:
        connection._stream.write(memoryview(encode(hello)), deadline)
        reply = connection._receive(deadline, MAX_FRAME_BYTES)
        if reply is None:
            raise ConnectionError("it ended the connection instead of an answer")
        if "error" in reply:
            raise _HelloRefused(f"{connection.member} refuses: {reply['error']}")
        connection.reply = reply
    except BaseException:
        connection.close()
        raise
    return connection


# --- the server -----------------------------------------------------------------------------------


def welcome(
    connection: Connection, key: FeedKey, member: str, admit: Callable[[], None]
) -> Message:
    """The server's part up to the client's hello, which it returns. ``admit`` is called once the
    client has proved himself. Raises OSError for whoever should just be dropped."""
    deadline = time.monotonic() + HANDSHAKE_TIMEOUT
    stream = connection._stream
    ours = os.urandom(_NONCE_BYTES)
    stream.write(memoryview(MAGIC + ours), deadline)
    claim = connection._receive(deadline, _MAX_STRANGERS_FRAME) or {}
    try:
        theirs = bytes.fromhex(str(claim.get("nonce")))
    except ValueError:
        theirs = b""
    if len(theirs) != _NONCE_BYTES or not _is_proved(
        claim.get("proof"), _proof(key, b"client", ours, theirs)
    ):
        raise ConnectionError("a stranger")
    admit()
    proof = _proof(key, b"server", theirs, ours)
    stream.write(memoryview(encode({"proof": proof, "member": member})), deadline)
    hello = connection._receive(deadline, MAX_FRAME_BYTES)
    if hello is None:
        raise ConnectionError("a client without a hello")
    return hello


def _proof(key: FeedKey, role: bytes, first: bytes, second: bytes) -> str:
    return hmac.new(key.secret, role + first + second, hashlib.sha256).hexdigest()


def _is_proved(proof: object, expected: str) -> bool:
    if not isinstance(proof, str) or not proof.isascii():  # half a surrogate cannot be encoded
        return False
    return hmac.compare_digest(proof, expected)


def server_context(key: FeedKey) -> ssl.SSLContext:
    """What the server's end of TLS needs; its private key never touches a disk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # they would make a connection look readable that is not
    fd = os.memfd_create("tflease-feed-key", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w") as file:
        file.write(key.certificate + "\n" + key.private_key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    return context


def _client_context(key: FeedKey) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, and the name, too
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=key.certificate)
    return context


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())  # 0 would mean: do not wait at all


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
