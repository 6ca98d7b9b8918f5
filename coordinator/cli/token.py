"""``tflease token``: a token for somebody who may do less than an operator.

Made from the operator's token alone, without a call: the coordinator can tell it by itself.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from coordinator.cli import connection


class Grantable(Enum):
    """The roles that a person is given; those of a run come with the run."""

    SUBMITTER = "submitter"
    READER = "reader"


def token(
    role: Annotated[
        Grantable,
        typer.Option(
            "--role",
            help="submitter: creates runs, asks for GPUs and looks at everything; its driver, and "
            "operators, stop runs. reader: looks at everything, and changes nothing.",
        ),
    ],
    name: Annotated[
        str,
        typer.Option("--name", help="Whose it is, for logs: letters, digits, - and _, at most 64."),
    ],
    token_file: connection.TokenFile = None,
) -> None:
    """Print a token for a role, made from the operator's token file. Nothing is called or kept.

    The same role and name give the same token. It is good for as long as the operator's token is:
    a new operator's token, and a restart of the daemon with it, end all of them at once.

    The exit code is 1 when the token file cannot be used, 2 when the name cannot.

    Examples:

    * `(umask 077; tflease token --role submitter --name alice > alice.token)`
    * `tflease token --role reader --name grafana --token-file /etc/tflease/token`
    """
    from coordinator.core.access import Principal, Role
    from coordinator.core.errors import TfleaseError
    from coordinator.credentials import read_token
    from coordinator.security import Keyring, role_of

    try:
        secret = read_token(token_file)
    except TfleaseError as error:
        connection.give_up(error.message)
    given = role_of(secret)
    if given is not None:
        connection.give_up(
            f"that is the token of a {given.value}, and only the operator's, which `tflease serve` "
            "has made, makes others: name its file with --token-file"
        )
    try:
        made = Keyring(secret).token_for(Principal(Role(role.value), name))
    except ValueError as error:
        connection.give_up(f"--name {error}", connection.USAGE)
    typer.echo(made)
