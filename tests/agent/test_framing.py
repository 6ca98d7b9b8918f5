"""Messages between agent and process: whole, in order, bounded, whatever the chunks."""

import math
import os
import resource
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_agent import framing
from executor_agent.framing import Channel, Decoder, FramingError, encode

MESSAGES = st.lists(
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), max_size=4),
    max_size=5,
)


@settings(max_examples=30)
@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 20), max_size=50))
def test_messages_arrive_whatever_the_chunks(
    messages: list[dict[str, object]], cuts: list[int]
) -> None:
    stream = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    received = []
    for size in cuts:
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    received += decoder.feed(stream)
    decoder.finish()
    assert received == messages


def test_a_loss_that_became_nan_passes() -> None:
    (message,) = Decoder().feed(encode({"loss": math.nan}))
    assert math.isnan(message["loss"])


def test_a_length_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(FramingError, match="67108865 bytes, over the limit of 67108864"):
        Decoder().feed((framing.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))


def test_http_on_the_channel_is_refused() -> None:
    with pytest.raises(FramingError, match="does not speak this protocol"):
        Decoder().feed(b"GET / HTTP/1.1\r\n\r\n")


def test_a_message_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_MESSAGE_BYTES", 10)
    with pytest.raises(FramingError, match="over the limit of 10 bytes"):
        encode({"text": "x" * 10})


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[1]", b"null"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(FramingError, match="a message is"):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


NESTED = 100_000


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    body = b'{"a":' + b"[" * NESTED + b"]" * NESTED + b"}"
    with pytest.raises(FramingError, match="nested too deeply to be read"):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_message_that_is_nested_too_deeply_is_not_sent() -> None:
    value: list[object] = []
    for _ in range(NESTED):
        value = [value]
    with pytest.raises(FramingError, match="nested too deeply to be sent"):
        encode({"a": value})


def test_a_stream_cut_inside_a_message_is_an_error() -> None:
    decoder = Decoder()
    assert decoder.feed(encode({"a": 1})[:-1]) == []
    with pytest.raises(FramingError, match="ended inside a message"):
        decoder.finish()


def test_channels_talk_to_each_other_and_see_the_end() -> None:
    left, right = socket.socketpair()
    with left, right:
        sender, receiver = Channel(left), Channel(right)
        big = {"text": "x" * 3_000_000}  # many times what the socket holds
        thread = threading.Thread(target=lambda: (sender.send({"n": 1}), sender.send(big)))
        thread.start()
        assert receiver.receive() == {"n": 1}
        assert receiver.receive() == big
        thread.join()
        left.shutdown(socket.SHUT_WR)
        assert receiver.receive() is None


def test_a_peer_that_does_not_read_costs_the_timeout_and_then_nothing() -> None:
    left, right = socket.socketpair()
    with left, right:
        channel = Channel(left)
        with pytest.raises(TimeoutError, match="did not read"):
            channel.send({"text": "x" * 3_000_000}, timeout=0.05)
        # Half a frame is out: another message behind it would be read as part of it.
        with pytest.raises(BrokenPipeError, match="cut short"):
            channel.send({"n": 1}, timeout=0.05)


def test_a_peer_that_is_gone_is_an_error() -> None:
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(OSError):
        Channel(left).send({"n": 1})


def test_descriptors_come_with_the_message_and_are_kept_from_programs() -> None:
    """A helper that user code starts must not hold a GPU's claim."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    read_end, write_end = os.pipe()
    with ours, theirs:
        data = encode({"gpus": ["GPU-a"], "padding": "x" * 100_000})
        sent = framing.send_with_descriptors(ours, data, [write_end, write_end])
        os.close(write_end)
        thread = threading.Thread(target=ours.sendall, args=(data[sent:],))
        thread.start()
        channel = Channel(theirs)
        message = channel.receive()
        thread.join()
        assert message is not None
        assert message["gpus"] == ["GPU-a"]
        taken = channel.take_descriptors()
        assert len(taken) == 2
        assert channel.take_descriptors() == []
        assert not any(map(os.get_inheritable, taken))
        for descriptor in taken:
            os.write(descriptor, b"x")
            os.close(descriptor)
    assert os.read(read_end, 10) == b"xx"
    assert os.read(read_end, 1) == b"", "nobody has a copy any more"
    os.close(read_end)


def test_without_descriptors_nothing_is_sent_early() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert framing.send_with_descriptors(ours, b"data", []) == 0
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_descriptors_for_which_there_is_no_room_are_an_error() -> None:
    """Else a member would start without the claims of its GPUs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs:
        data = encode({"gpus": []})
        sent = framing.send_with_descriptors(ours, data, [ours.fileno()] * 2)
        ours.sendall(data[sent:])
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
        channel = Channel(theirs)
        try:
            with pytest.raises(OSError, match="may not open so many files"):
                channel.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in channel.take_descriptors():
                os.close(descriptor)
