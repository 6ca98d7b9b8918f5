"""A coordinator in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from coordinator.authority import new_authority
from coordinator.core.access import ClientTls, ServerTls
from coordinator.core.model import RunId, RunSpec, RunView
from coordinator.engine import Engine
from coordinator.limits import Limits
from coordinator.security import new_token
from coordinator.server import Server
from coordinator.testing.clock import ManualClock


@dataclass(frozen=True, slots=True)
class Serving:
    """A coordinator that listens. ``address``, ``token`` and ``tls`` are what clients need.

    A synchronous ``coordinator.client.RunClient`` blocks the event loop that the server needs:
    call it in a thread (``asyncio.to_thread``).
    """

    address: str
    token: str
    engine: Engine
    server: Server
    tls: ClientTls | None = None

    def create_run(self, spec: RunSpec) -> RunId:
        """A new run; its reservation clock has started."""
        return self.engine.create_run("", spec)

    def view(self, run_id: RunId) -> RunView:
        """The run as it is now. Raises UnknownRun."""
        return self.engine.view(run_id)

    async def until(self, run_id: RunId, condition: Callable[[RunView], bool]) -> RunView:
        """Waits for a state of the run. Raises AssertionError when the run ends without it."""
        async with aclosing(self.engine.watch(run_id)) as views:
            async for view in views:
                if condition(view):
                    return view
        raise AssertionError(f"the run ended before that: {view}")

    async def ended(self, run_id: RunId) -> RunView:
        """Waits for the end of the run."""
        return await self.until(run_id, lambda view: view.phase.is_terminal)


@asynccontextmanager
async def serving(
    engine: Engine | None = None,
    *,
    token: str = "",
    clock: ManualClock | None = None,
    tls: bool | ServerTls = False,
    limits: Limits | None = None,
) -> AsyncIterator[Serving]:
    """A coordinator on 127.0.0.1, on a port that is free; stopped on leaving.

    ``token``: a new one when empty. ``clock``: time passes when the test says so. ``tls``: True:
    with an authority of its own, as an embedded coordinator; or the server's side of it.
    ``limits``: None for the usual ones. The engine's invariants are checked on leaving, unless the
    test has failed already::

        async with serving() as coordinator:
            client = ReservationClient(coordinator.address, coordinator.token)
    """
    if engine is None:
        engine = Engine() if clock is None else Engine(clock)
    if clock is not None:
        clock.attach(engine)
    token = token or new_token()
    server_tls, client_tls = _both_sides(tls)
    server = Server(engine, token, server_tls, limits=limits)
    port = await server.start()
    try:
        yield Serving(f"127.0.0.1:{port}", token, engine, server, client_tls)
        engine.check_invariants()
    finally:
        await server.stop(grace=0.0)


def _both_sides(tls: bool | ServerTls) -> tuple[ServerTls | None, ClientTls | None]:
    """Of a server's side alone the clients' is the test's business."""
    if isinstance(tls, ServerTls):
        return tls, None
    return new_authority() if tls else (None, None)
