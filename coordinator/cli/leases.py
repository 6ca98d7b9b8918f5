"""``tflease leases``: the GPUs of a coordinator, who has them, and an operator's word about one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import connection

if TYPE_CHECKING:
    from coordinator.core.gpu import LeaseView

_PREFIXES = ("GPU-", "MIG-")

leases = typer.Typer(no_args_is_help=False)

Gpu = Annotated[
    str, typer.Argument(help="Its UUID, or the beginning of it, with or without its GPU-.")
]
Reason = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why: kept in the record of the GPU.",
        callback=connection.checked_text,
    ),
]


@leases.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: connection.AsJson = False,
    events: Annotated[
        bool, typer.Option("--events", help="What has happened to them, the latest thousand.")
    ] = False,
) -> None:
    """Show the GPUs that a `tflease serve` has heard of, who has them, or what is in the way.

    A GPU is *free*, *held*, *releasing* while its holder leaves, *unproven* when its holder has
    ended and nobody has seen it free since, and *quarantined* when nobody has for a minute, or by
    an operator's word. Unproven and quarantined ones are granted to nobody before an agent on
    their host has found them free, or an operator says so.

    Exit codes, also of the words below: 0 done; 1 the coordinator cannot be reached, or refuses; 2
    the command line or the configuration file makes no sense; 3 there is no such GPU.

    Examples:

    * `tflease leases`
    * `tflease leases --events`
    * `tflease leases clear 5b2c --reason "nvidia-smi is clean"`
    * `tflease leases quarantine GPU-5b2c --reason "ECC errors"`
    """
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    context.obj = place
    if context.invoked_subcommand is not None:
        if as_json or events:
            text = f"--json and --events are for the list, not for {context.invoked_subcommand}"
            connection.give_up(text, connection.USAGE)
        return
    with connection.connect_to_gpus(place) as (client, address):
        gpus = client.list()
        told = client.events() if events else []
    if as_json:
        from coordinator.cli.run_json import lease, time_text

        found = {"coordinator": address, "gpus": list(map(lease, gpus))}
        if events:
            found["events"] = [{"time": time_text(at), "text": text} for at, text in told]
        typer.echo(json.dumps(found, indent=2))
        return
    if events:
        from coordinator.cli.lease_tables import event_line

        for at, text in told:
            typer.echo(event_line(at, text))
        return
    from rich.console import Console

    from coordinator.cli.lease_tables import all_gpus

    Console(highlight=False).print(all_gpus(gpus, time.time()))


@leases.command("clear")
def clear(
    context: typer.Context,
    gpu: Gpu,
    reason: Reason,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: connection.AsJson = False,
) -> None:
    """Say that a GPU is free: your word stands for the proof.

    Look on its host first; what still runs there will share the GPU with whoever gets it next.
    Refused while somebody holds it: stop that run instead.
    """
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    _decide(context, "clear", gpu, reason, place, as_json)


@leases.command("quarantine")
def quarantine(
    context: typer.Context,
    gpu: Gpu,
    reason: Reason,
    coordinator: connection.Coordinator = None,
    token_file: connection.TokenFile = None,
    ca_file: connection.CaFile = None,
    cert_file: connection.CertFile = None,
    key_file: connection.KeyFile = None,
    as_json: connection.AsJson = False,
) -> None:
    """Say that a GPU must not be used, until it is cleared.

    Refused while somebody holds it: stop that run first.
    """
    place = connection.Place(coordinator, token_file, ca_file, cert_file, key_file)
    _decide(context, "quarantine", gpu, reason, place, as_json)


def _decide(
    context: typer.Context,
    word: str,
    wanted: str,
    reason: str,
    place: connection.Place,
    as_json: bool,
) -> None:
    """Options count before and after the word."""
    from coordinator.cli.lease_tables import one_line

    if not reason.strip():
        connection.give_up("--reason: say why", connection.USAGE)
    with connection.connect_to_gpus(place.before(context.obj)) as (client, address):
        uuid = choose(client.list(), wanted).uuid
        done = client.clear(uuid, reason) if word == "clear" else client.quarantine(uuid, reason)
    if as_json:
        from coordinator.cli.run_json import lease

        typer.echo(json.dumps({"coordinator": address, "gpu": lease(done)}, indent=2))
    else:
        typer.echo(one_line(done))


def choose(gpus: Sequence[LeaseView], wanted: str) -> LeaseView:
    """By its UUID or the beginning of it. Ends the command when that fits none, or several."""
    beginnings = (wanted, *(prefix + wanted for prefix in _PREFIXES))
    fitting = [gpu for gpu in gpus if gpu.uuid.startswith(beginnings)] if wanted else []
    exact = [gpu for gpu in fitting if gpu.uuid in beginnings]
    if len(fitting) > 1 and len(exact) != 1:
        uuids = ", ".join(f"{gpu.uuid} on {gpu.hostname}" for gpu in fitting)
        connection.give_up(f"several GPUs begin with {wanted}: {uuids}", connection.USAGE)
    if not fitting:
        text = f"the coordinator knows no GPU {wanted!r}; see `tflease leases`"
        connection.give_up(text, connection.NO_SUCH_GPU)
    return (exact or fitting)[0]
