"""Messages between agent and process: whole, in order, bounded, whatever the chunks."""

import math
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
