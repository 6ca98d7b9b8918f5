"""``tflease doctor``: why the first run will not start, before it does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from coordinator.cli import probe
from coordinator.cli.checks import Check, Status, failed, host, stack
from coordinator.cli.probe import ProbeFailed

_STYLES = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "bold red"}


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs to read.")
    ] = False,
) -> None:
    """Check what a first run needs on this machine, and say what to do about what is missing.

    Looks at Python, the kernel, Java, Spark, the executors' Python (PYSPARK_PYTHON), TensorFlow,
    protobuf, memory, directories and network settings. Starts no Spark and changes nothing.
    Executors on other machines need the same: run it there, too.

    The exit code is 1 when a line has failed; notes are for your information.
    """
    checks = []
    for check in examine():
        checks.append(check)
        if not as_json:
            _show(check)
    failures = sum(check.status is Status.FAILED for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": not failures, "checks": list(map(_plain, checks))}, indent=2))
    else:
        _sum_up(failures)
    if failures:
        raise typer.Exit(1)


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


def _plain(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "status": check.status.value,
        "found": check.found,
        "advice": check.advice,
    }


def _show(check: Check) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text()
    line.append(f"{check.status.value:8}", style=_STYLES[check.status])
    line.append(f"{check.name:20}{check.found}")
    if check.advice:
        line.append(f"\n{'':8}{'':20}-> {check.advice}", style="bold")
    Console(highlight=False).print(line, soft_wrap=True)


def _sum_up(failures: int) -> None:
    if failures:
        lines = "1 line has" if failures == 1 else f"{failures} lines have"
        typer.echo(f"\n{lines} failed: do what stands after the arrow, then ask again.")
    else:
        typer.echo("\nThis machine is ready. Executors on other machines need the same.")
