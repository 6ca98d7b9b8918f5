"""Tokens: who may call. Nothing of a call is parsed before its token has been checked (R5).

The operator's token is a secret in a file. All others are made from it, and need not be kept
anywhere: "role.name.mac", where the mac is an HMAC of role and name with a key that comes from the
operator's token. Whoever replaces that token makes all others worthless.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from coordinator import status
from coordinator.calls import PRINCIPAL, Aspect, Call
from coordinator.core.access import Principal, Role, may_call
from coordinator.core.errors import PermissionDenied, Unauthenticated

METADATA_KEY = "authorization"
_SCHEME = "Bearer "
_OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""Answered to anybody: they tell that the server is up and nothing else."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_LONGEST = 512  # characters of a token; a longer one is not even compared


def new_token() -> str:
    """A secret that cannot be guessed."""
    return secrets.token_urlsafe(32)


def call_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What a client sends with every call."""
    return ((METADATA_KEY, _SCHEME + token),)


def role_of(token: str) -> Role | None:
    """What a token says of itself, true or not; None: nothing, as an operator's."""
    try:
        return Role(token.partition(".")[0]) if "." in token else None
    except ValueError:
        return None


class Keyring:
    """All tokens of one coordinator."""

    def __init__(self, operator_token: str) -> None:
        if not operator_token:
            raise ValueError("an empty token would let everybody in")
        self._operator = operator_token.encode()
        self._key = hashlib.sha256(b"tflease tokens\0" + self._operator).digest()

    def token_for(self, principal: Principal) -> str:
        """The same for the same principal. Raises ValueError for the operator, and for a name
        that does not fit into a header."""
        if principal.role is Role.OPERATOR:
            raise ValueError("the operator's token is a secret of its own")
        name = principal.name
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: a name of at most 64 letters, digits, - and _ is needed")
        return f"{principal.role.value}.{name}.{self._mac(principal)}"

    def _mac(self, principal: Principal) -> str:
        text = f"{principal.role.value}\0{principal.name}".encode(errors="replace")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def principal_of(self, token: str) -> Principal | None:
        """Whose token this is; None: of nobody."""
        if len(token) > _LONGEST:
            return None
        # Whatever is wrong with it, no comparison ends earlier for more of it being right.
        given = token.encode(errors="replace")
        if hmac.compare_digest(given, self._operator):
            return Principal(Role.OPERATOR)
        role, _, rest = token.partition(".")
        name, _, mac = rest.rpartition(".")
        try:
            principal = Principal(Role(role), name)
        except ValueError:
            return None
        if principal.role is Role.OPERATOR:
            return None
        is_ours = hmac.compare_digest(mac.encode(errors="replace"), self._mac(principal).encode())
        return principal if is_ours else None


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a token of ours, before their first message is read."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        if handler_call_details.method in _OPEN_METHODS:
            return await continuation(handler_call_details)
        principal = self._principal_of(handler_call_details)
        if principal is None:
            return _REFUSAL
        PRINCIPAL.set(principal)
        return await continuation(handler_call_details)

    def _principal_of(self, details: Any) -> Principal | None:
        for key, value in details.invocation_metadata or ():
            if key == METADATA_KEY:
                given = value if isinstance(value, str) else bytes(value).decode(errors="replace")
                if not given.startswith(_SCHEME):
                    return None
                return self._keyring.principal_of(given.removeprefix(_SCHEME))
        return None


class Authorization(Aspect):
    """Each role may make its calls; the tokens of a run make them for that run."""

    def begin(self, call: Call) -> None:
        if not may_call(call.principal.role, call.name):
            raise PermissionDenied(
                f"the token of role {call.principal.role.value} is not good for {call.name}",
                {"role": call.principal.role.value, "method": call.name},
            )

    def parsed(self, call: Call, request: Any) -> None:
        check_run(call.principal, str(getattr(request, "run_id", "")))


def check_run(principal: Principal, run_id: str) -> None:
    """Raises PermissionDenied when the token is another run's."""
    if principal.role.is_of_a_run and principal.name != run_id:
        raise PermissionDenied(
            f"this token opens run {principal.name} and no other",
            {"run_id": principal.name},
        )


async def _refuse(_: Any, context: Any) -> None:
    error = Unauthenticated("this call needs a token of this coordinator")
    await context.abort(
        status.code_of(error),
        status.text_of(error),
        trailing_metadata=status.trailing_metadata(error),
    )


# Stream to stream, without a deserializer: it answers before a message is read, to calls of
# every kind.
_REFUSAL: Any = grpc.stream_stream_rpc_method_handler(_refuse)
