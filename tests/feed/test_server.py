"""Where a member takes rows: who gets in, who does not, and how it ends."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.spark.feed.keys import make_key
from executor_agent.feed.server import FeedServer
from executor_agent.feed.wire import FeedRefused, FeedUnreachable, dial
from tests.feed.feed_scene import (
    DEADLINE,
    Background,
    Scene,
    batch_of,
    eventually,
    our_threads,
    values,
)

ROOT = Path(__file__).parents[2]


def opened(scene: Scene) -> FeedServer:
    """One worker whose first train is open."""
    server = scene.member()
    scene.open()
    return server


# --- strangers ------------------------------------------------------------------------------------


def tcp(server: FeedServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE)


def unix(server: FeedServer) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(server.endpoint().path)
    return sock


def tls(server: FeedServer) -> socket.socket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(tcp(server))


def read_to_the_end(sock: socket.socket) -> bytes:
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionError:
        pass
    return got


@pytest.mark.parametrize("connect", [tcp, unix, tls])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096),
        (65).to_bytes(4, "big")
        + b'{"nonce": "00", "proof": "1111111111111111111111111111111111111"}',
        (2).to_bytes(4, "big") + b"[]",
        (1 << 31).to_bytes(4, "big") + bytes(100),
    ],
    ids=["http", "noise", "false proof", "no object", "long"],
)
def test_what_is_no_feeder_is_dropped_and_others_notice_nothing(
    scene: Scene, connect: object, data: bytes
) -> None:
    server = opened(scene)
    feeder = scene.feeder(server)
    with connect(server) as stranger:  # type: ignore[operator]
        stranger.sendall(data)
        got = read_to_the_end(stranger)
    assert b"proof" not in got, "a stranger learns nothing but a nonce"
    assert feeder.feed(batch_of(0, 3), 0) == {"took": 3, "rows": 3}
    assert scene.feeder(server, partition=1).reply["action"] == "go"


@pytest.mark.slow
@pytest.mark.parametrize("local", [True, False])
def test_three_hundred_idle_strangers_keep_nobody_out(
    scene: Scene, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wire", "server"):  # it is not their time that ends them
        monkeypatch.setattr(f"executor_agent.feed.{module}.HANDSHAKE_TIMEOUT", 1000.0)
    server = opened(scene)
    feeder = scene.feeder(server, local=local)
    strangers = [unix(server) if local else tcp(server) for _ in range(300)]
    try:
        assert feeder.feed(batch_of(0, 3), 0) == {"took": 3, "rows": 3}
        assert scene.feeder(server, partition=1, local=local).reply["action"] == "go"
        eventually(lambda: len(our_threads()) < 270, "those who waited longest gave way")
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_stranger_who_says_nothing_is_dropped_in_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open connections: nobody is there who could ever say something."""
    monkeypatch.setattr("executor_agent.feed.wire.HANDSHAKE_TIMEOUT", 0.1)
    monkeypatch.setattr("executor_agent.feed.server.HANDSHAKE_TIMEOUT", 0.1)
    server = scene.member()
    with tcp(server) as one, unix(server) as two:
        assert read_to_the_end(one) == b""
        assert read_to_the_end(two).startswith(b"tflease-feed/1\n")


def test_a_client_with_another_secret_is_refused(scene: Scene) -> None:
    server = opened(scene)
    wrong = replace(scene.key.for_feeders(), secret=b"x" * 32)
    for boot in ("", server.boot_id):
        with pytest.raises(FeedRefused, match="serves another run"):
            dial(server.endpoint(), wrong, {"kind": "control"}, timeout=DEADLINE, boot_id=boot)


def test_a_client_does_not_believe_another_runs_server(scene: Scene) -> None:
    server = scene.member()
    other = make_key().for_feeders()
    with pytest.raises(FeedRefused, match="another run's certificate"):
        dial(server.endpoint(), other, {"kind": "control"}, timeout=DEADLINE)


def test_a_client_does_not_believe_another_member(scene: Scene) -> None:
    """A port is soon somebody else's, of the same run even."""
    server = scene.member("worker:0")
    endpoint = replace(server.endpoint(), member="worker:3")
    with pytest.raises(FeedRefused, match="worker:0 answers there"):
        dial(endpoint, scene.key, {"kind": "control"}, timeout=DEADLINE)


def test_a_path_that_leads_nowhere_is_no_obstacle(scene: Scene) -> None:
    """Another container on this host has other files."""
    server = opened(scene)
    endpoint = replace(server.endpoint(), path=server.endpoint().path + "-not")
    hello = {"kind": "control"}
    connection = dial(endpoint, scene.key, hello, timeout=DEADLINE, boot_id=server.boot_id)
    assert not connection.is_local
    connection.close()


def test_nobody_there_is_unreachable_and_says_where(scene: Scene) -> None:
    server = scene.member()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        endpoint = replace(server.endpoint(), port=port, path="")
        with pytest.raises(FeedUnreachable, match=rf"worker:0 \(127.0.0.1:{port}: .*refused"):
            dial(endpoint, scene.key, {"kind": "control"}, timeout=DEADLINE)


def test_a_hello_of_no_kind_is_refused_by_name(scene: Scene) -> None:
    server = scene.member()
    with pytest.raises(FeedRefused, match="worker:0 does not know 'dance'"):
        scene.dial(server, {"kind": "dance"})


def test_a_handler_that_raises_ends_its_connection_only(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    server = scene.member()
    server.register("fail", lambda hello, connection: 1 // 0)
    with pytest.raises(FeedUnreachable):
        scene.dial(server, {"kind": "fail"})
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert scene.control("state")["text"]


# --- ends -----------------------------------------------------------------------------------------


def test_close_tells_feeders_and_readers_and_leaves_no_thread(scene: Scene) -> None:
    server = opened(scene)
    server.feeds["input"].open(2, True)
    feeder = scene.feeder(server)
    feeder.feed(batch_of(0, 3), 0)
    train = server.feeds["input"].wait_for_train(lambda: False)
    assert train is not None
    chunks = next(train.epoch_readers()).chunks()
    assert values([next(chunks)]) == [0, 1]
    reading = Background(list, chunks)
    closing = Background(server.close, "main_fun has returned")
    assert feeder.answer() == {"stop": "main_fun has returned"}
    feeder.connection.close()
    closing.result()
    assert reading.result() == []
    assert not our_threads()
    assert not Path(server.endpoint().path).exists()
    assert server.feeds["later"].wait_for_train(lambda: False) is None


def test_the_socket_is_for_our_user_alone(scene: Scene) -> None:
    path = Path(scene.member().endpoint().path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_port_is_shared_with_whoever_holds_it(scene: Scene) -> None:
    from executor_agent.ports import HeldPort

    held = HeldPort()
    server = FeedServer(scene._directory, held.port, scene.key, member="worker:0")
    try:
        server.start()
        assert server.port == held.port
        dial(server.endpoint(), scene.key, {"kind": "control"}, timeout=DEADLINE).close()
    finally:
        server.close("over")
        held.close()


def test_a_path_that_is_too_long_leaves_tcp(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    server = FeedServer(folder, 0, scene.key, member="worker:0")
    try:
        server.start()
        assert server.endpoint().path == ""
        dial(server.endpoint(), scene.key, {"kind": "control"}, timeout=DEADLINE).close()
    finally:
        server.close("over")
