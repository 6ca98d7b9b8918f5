"""Who is fed, who keeps count, and where they listen: read from the run's picture. PURE."""

from __future__ import annotations

from coordinator.core.errors import InvalidRun
from coordinator.core.model import MemberId, MemberView, Role, Roles, RunView
from executor_agent.core.feed_values import MAX_SOCKET_PATH, SOCKET_NAME, FeedEndpoint


def fed_roles(roles: Roles) -> tuple[Role, ...]:
    """With parameter servers the chief hands out the work and reads nothing itself."""
    return (Role.WORKER,) if roles.ps else (Role.CHIEF, Role.WORKER)


def fed_members(roles: Roles) -> tuple[MemberId, ...]:
    """The members that take rows, in order of their rank. Raises InvalidRun when there are none."""
    found = tuple(
        MemberId(role, index) for role in fed_roles(roles) for index in range(roles.count(role))
    )
    if not found:
        raise InvalidRun(
            "the run has nobody to feed: with parameter servers it is the workers that read the "
            "data, so ask for worker=1 or more"
        )
    return found


def keeper(roles: Roles) -> MemberId:
    """Rank 0, in whose process the rows of all are counted."""
    return MemberId(Role.CHIEF if roles.chief else Role.WORKER, 0)


def member_of(run: RunView, member: MemberId) -> MemberView:
    """How the run sees it."""
    return next(each for each in run.members if each.id == member)


def endpoints(run: RunView) -> tuple[FeedEndpoint, ...]:
    """Where the members that are fed take rows. Raises InvalidRun when they do not."""
    return tuple(endpoint(run, member) for member in fed_members(run.spec.roles))


def endpoint(run: RunView, member: MemberId) -> FeedEndpoint:
    """Where the member takes rows. Raises InvalidRun when it does not."""
    found = member_of(run, member)
    if found.endpoint is None or not found.endpoint.feed_port:
        raise InvalidRun(
            f"{member} takes no rows: pass input_mode=InputMode.SPARK to TFCluster.run"
        )
    directory = found.executor.directory if found.executor is not None else ""
    path = f"{directory}/{SOCKET_NAME}"
    has_path = bool(directory) and len(path.encode()) <= MAX_SOCKET_PATH
    return FeedEndpoint(
        member=str(member),
        host=found.endpoint.host,
        port=found.endpoint.feed_port,
        path=path if has_path else "",
        boot_id=found.executor.boot_id if found.executor is not None else "",
    )
