"""Tokens: who may call. Nothing of a call is parsed before its token has been checked (R5)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from coordinator import status
from coordinator.core.errors import Unauthenticated

METADATA_KEY = "authorization"
_SCHEME = "Bearer "
_OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""Answered to anybody: they tell that the server is up and nothing else."""


def new_token() -> str:
    """A secret that cannot be guessed."""
    return secrets.token_urlsafe(32)


def call_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What a client sends with every call."""
    return ((METADATA_KEY, _SCHEME + token),)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without the run's token, before their first message is read."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("an empty token would let everybody in")
        self._expected = (_SCHEME + token).encode()

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        if handler_call_details.method in _OPEN_METHODS or self._is_valid(handler_call_details):
            return await continuation(handler_call_details)
        return _REFUSAL

    def _is_valid(self, details: Any) -> bool:
        for key, value in details.invocation_metadata or ():
            if key == METADATA_KEY:
                given = value.encode() if isinstance(value, str) else bytes(value)
                return hmac.compare_digest(given, self._expected)
        return False


async def _refuse(_: Any, context: Any) -> None:
    error = Unauthenticated("this call needs the token of the run")
    await context.abort(
        status.code_of(error),
        status.text_of(error),
        trailing_metadata=status.trailing_metadata(error),
    )


# Stream to stream, without a deserializer: it answers before a message is read, to calls of
# every kind.
_REFUSAL: Any = grpc.stream_stream_rpc_method_handler(_refuse)
