"""GPUs and their leases for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.run_json import time_text
from coordinator.cli.run_tables import age, clean
from coordinator.core.gpu import LeaseState, LeaseView

_STYLES = {
    LeaseState.FREE: "green",
    LeaseState.RELEASING: "yellow",
    LeaseState.UNPROVEN: "yellow",
    LeaseState.QUARANTINED: "bold red",
}


def all_gpus(gpus: Sequence[LeaseView], now: float) -> RenderableType:
    """``now`` in Unix seconds, as the instants of the views."""
    if not gpus:
        return Text("no GPUs: the coordinator hears of them from members that ask for some")
    table = Table(box=None, pad_edge=False)
    for heading in ("GPU", "STATE", "SINCE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("HOST", "NAME", "HOLDER", "WHY"):
        table.add_column(heading, overflow="fold")
    for gpu in gpus:
        table.add_row(
            Text(clean(gpu.uuid)),
            Text(gpu.state.value, style=_STYLES.get(gpu.state, "")),
            age(now - gpu.since),
            Text(clean(gpu.hostname)),
            Text(clean(gpu.name)),
            Text(clean(_holder(gpu))),
            Text(clean(_why(gpu))),
        )
    return table


def one_line(gpu: LeaseView) -> str:
    """How it stands now."""
    why = _why(gpu)
    holder = _holder(gpu)
    text = f"{gpu.uuid} on {gpu.hostname}: {gpu.state.value}"
    text += f", {holder}" if holder else ""
    return clean(f"{text}; {why}" if why else text)


def event_line(at: float, text: str) -> str:
    """``at`` in Unix seconds."""
    return clean(f"{time_text(at)}  {text}")


def _holder(gpu: LeaseView) -> str:
    """Of its lease; of the last one while it is not known to be free."""
    if not gpu.who or gpu.state is LeaseState.FREE:
        return ""
    last = "" if gpu.state.is_live else "last "
    return f"{last}{gpu.who} of {gpu.holder}"


def _why(gpu: LeaseView) -> str:
    pids = f" (pid {', '.join(map(str, gpu.pids))})" if gpu.pids else ""
    return f"{gpu.reason}{pids}"
