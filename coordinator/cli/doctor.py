"""``tflease doctor``: why the first run will not start, before it does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from coordinator.cli import connection, probe
from coordinator.cli.checks import Check, Status, daemon, failed, host, stack
from coordinator.cli.place import Place, Unusable, complete
from coordinator.cli.probe import ProbeFailed

_STYLES = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "bold red"}


def doctor(
    spark: Annotated[
        str | None,
        typer.Option(
            "--spark",
            metavar="MASTER",
            help="Check executors, too: a master (spark://HOST:7077, yarn, k8s://..., "
            "'local-cluster[2,1,1024]') or a Spark Connect server (sc://HOST:15002).",
        ),
    ] = None,
    ports: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="With --spark: as ports=... of TFCluster.run."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="CIDR", help="With --spark: as network=... of TFCluster.run."),
    ] = None,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: connection.AsJson = False,
) -> None:
    """Check what a first run needs on this machine, and say what to do about what is missing.

    Looks at Python, the kernel, Java, Spark, the executors' Python (PYSPARK_PYTHON), TensorFlow,
    protobuf, memory, directories, network settings and, where one is configured, the coordinator.
    Starts no Spark and changes nothing.

    With --spark it starts a session (spark-defaults.conf counts as always) and a small job, which
    looks at every executor's host: versions, imports, the ways between driver, coordinator and
    executors, GPUs and claims, what earlier members have left, limits and disk. In a notebook:
    `from coordinator.spark.examination import examine; examine(spark)`.

    Exit codes: 0 no line has failed; 1 one has; 2 the command line makes no sense. Notes are for
    your information.

    Examples:

    * `tflease doctor`
    * `tflease doctor --spark spark://master.example:7077`
    * `tflease doctor --spark sc://connect.example:15002 --coordinator grpc://10.0.0.5:7787 --json`
    """
    place = Place(coordinator, token_file, ca_file, cert_file, key_file)
    if spark is None and (ports or network):
        connection.give_up("--ports and --network are for --spark MASTER", connection.USAGE)
    checks = []
    for check in _every_line(place, spark, ports, network):
        checks.append(check)
        if not as_json:
            _show(check)
    failures = sum(check.status is Status.FAILED for check in checks)
    if as_json:
        plain = [check.to_plain() for check in checks]
        typer.echo(json.dumps({"ok": not failures, "checks": plain}, indent=2))
    else:
        _sum_up(failures, with_executors=spark is not None)
    if failures:
        raise typer.Exit(connection.FAILED)


def _every_line(
    place: Place, spark: str | None, ports: str | None, network: str | None
) -> Iterator[Check]:
    yield from examine()
    yield from _guarded_lines("coordinator", lambda: daemon.coordinator(place))
    if spark is not None:
        yield from _guarded_lines("Spark", lambda: _executors(place, spark, ports, network))


def _executors(
    place: Place, master: str, ports: str | None, network: str | None
) -> Iterator[Check]:
    """The job's lines. The coordinator that is looked for from there is one that was named: one
    that was only found on this machine is for this machine."""
    from coordinator.core.errors import InvalidRun, SparkUnusable

    try:
        from coordinator.spark import examination, own_session
    except ImportError as error:
        advice = f"{sys.executable} -m pip install 'tflease[spark]'"
        yield failed("Spark", f"pyspark cannot be imported: {error}", advice)
        return
    try:
        named, _ = complete(place)
    except Unusable:  # a line above has said so
        named = place
    try:
        with own_session.open_session(master) as session:
            found = examination.examine(
                session, coordinator=named.coordinator, ports=ports, network=network
            )
    except InvalidRun as error:
        connection.give_up(error.message, connection.USAGE)
    except SparkUnusable as error:
        advice = "look at the lines on Java, pyspark and the host name above, and at the master"
        yield failed("Spark", error.message, advice)
        return
    yield from found.checks


def examine() -> Iterator[Check]:
    """Every line, as soon as it is known."""
    yield _guarded("Python", host.python)
    yield _guarded("kernel", host.kernel)
    yield _guarded("/proc", host.proc)
    yield _guarded("Java", stack.java)
    yield from _interpreters()
    yield _guarded("members' directory", host.member_directory)
    yield _guarded("memory", host.memory)
    yield _guarded("address space", host.address_space)
    yield _guarded("proxy", host.proxy)
    yield _guarded("host name", host.host_name)


def _interpreters() -> Iterator[Check]:
    """The driver's, and the executors' as far as it can be known here: TensorFlow runs there."""
    try:
        driver = probe.ask(sys.executable, "pyspark")
    except ProbeFailed as error:
        yield failed("packages", str(error), "repair this interpreter's installation")
        return
    yield stack.pyspark(driver)
    yield from stack.libraries(driver)
    yield stack.protobuf_implementation(driver)
    check, executors = stack.executors_python(driver)
    yield check
    yield stack.tensorflow(executors or driver)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """An odd machine must not hide what the other lines have to say."""
    try:
        return check()
    except Exception as error:
        return failed(name, f"cannot be checked: {error!r}", "please report this")


def _guarded_lines(name: str, lines: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from lines()
    except typer.Exit:
        raise
    except Exception as error:
        yield failed(name, f"cannot be checked: {error!r}", "please report this")


def _show(check: Check) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text()
    line.append(f"{check.status.value:8}", style=_STYLES[check.status])
    line.append(f"{check.name:20}{check.found}")
    if check.advice:
        line.append(f"\n{'':8}{'':20}-> {check.advice}", style="bold")
    Console(highlight=False).print(line, soft_wrap=True)


def _sum_up(failures: int, *, with_executors: bool) -> None:
    if failures:
        lines = "1 line has" if failures == 1 else f"{failures} lines have"
        typer.echo(f"\n{lines} failed: do what stands after the arrow, then ask again.")
    elif with_executors:
        typer.echo("\nThis machine and the executors are ready.")
    else:
        typer.echo("\nThis machine is ready. Executors: tflease doctor --spark MASTER")
