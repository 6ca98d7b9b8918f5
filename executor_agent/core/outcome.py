"""How a member's process ended, in its own words, and whether it was a bystander.

PURE. An `Outcome` is what `bootstrap` leaves behind as `outcome.json`. A process that was killed
leaves none: that it is missing is itself a fact, for the agent to combine with the exit status.

*Peer lost* marks what a healthy member raises because another one went away. It has to be told
apart by class name and module, as neither this room nor the agent may import tensorflow.
"""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_MESSAGE_CHARACTERS = 8 * 1024
MAX_TRACEBACK_CHARACTERS = 16 * 1024
"""TensorFlow's errors can carry megabytes of graph; an outcome has to fit into one report."""


class Status(StrEnum):
    """What ended the process."""

    RETURNED = "returned"
    """`main_fun` returned, or left by `sys.exit(0)`."""
    RAISED = "raised"
    """An exception left `main_fun`, or our own code around it."""
    EXITED = "exited"
    """`main_fun` called `sys.exit` with something else than success."""
    PRELOAD_FAILED = "preload_failed"
    """A module of `preload` could not be imported; the gang never formed with this process."""
    PAYLOAD_FAILED = "payload_failed"
    """`main_fun` and its arguments could not be unpickled on this machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end of one process.

    Attributes:
        exception_type: qualified class name; None when nothing was raised.
        message: the exception's text, or, with status "returned", a warning that concerns the
            result; empty when there is nothing to say.
        traceback: as Python prints it, causes included; empty when nothing was raised.
        peer_lost: what was raised is what losing another member looks like.
        exit_code: the exit status the process is about to end with.
        has_result: `result.pkl` holds what `main_fun` returned.
        duration_seconds: how long `main_fun` ran; 0 when it was never entered.
    """

    status: Status
    exception_type: str | None = None
    message: str = ""
    traceback: str = ""
    peer_lost: bool = False
    exit_code: int = 0
    has_result: bool = False
    duration_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON object; overlong texts lose their middle."""
        value = dataclasses.asdict(self)
        value["status"] = self.status.value
        value["message"] = _clip(self.message, MAX_MESSAGE_CHARACTERS)
        value["traceback"] = _clip(self.traceback, MAX_TRACEBACK_CHARACTERS)
        return value

    @classmethod
    def from_json(cls, value: object) -> "Outcome":
        """Reads what `to_json` wrote. Fields of a newer version are ignored.

        Raises:
            ValueError: not an outcome.
        """
        if not isinstance(value, dict):
            raise ValueError(f"an outcome is a JSON object, not {type(value).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        fields = {key: item for key, item in value.items() if key in known}
        try:
            fields["status"] = Status(str(fields.get("status")))
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not an outcome: {error}") from error

    def dumps(self) -> str:
        """The text of `outcome.json`."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    @classmethod
    def loads(cls, text: str | bytes) -> "Outcome":
        """Reads the text of an `outcome.json`.

        Raises:
            ValueError: not JSON, or not an outcome.
        """
        return cls.from_json(json.loads(text))


def describe(error: BaseException, trace: str, status: Status, exit_code: int) -> Outcome:
    """The outcome of a process that `error` ends; `trace` is its traceback, formatted."""
    try:
        message = str(error)
    except Exception:
        message = "(its text could not be made)"
    return Outcome(status, qualified_name(error), message, trace, exit_code=exit_code)


def preload_message(name: str, host: str, executable: str, python: str, outcome: Outcome) -> str:
    """Which module could not be imported where, and what to do about it."""
    package = name.partition(".")[0]
    return (
        f"cannot import {name!r} on host {host} with {executable} (Python {python}): "
        f"{outcome.exception_type}: {outcome.message}. Install it for that interpreter "
        f"({executable} -m pip install {package}), or point Spark at one that has it "
        "(PYSPARK_PYTHON, spark.pyspark.python), or leave it out of `preload`"
    )


def payload_message(host: str, executable: str, outcome: Outcome) -> str:
    """Why `main_fun` could not be unpickled where, and what to do about it."""
    return (
        f"cannot unpickle main_fun and its arguments on host {host} with {executable}: "
        f"{outcome.exception_type}: {outcome.message}. Modules of your own have to reach the "
        "executors (addPyFile, addArtifacts), and versions have to match the driver's"
    )


def _clip(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


_PEER_LOST_CLASSES = frozenset(
    {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"}
)
_PEER_LOST_TEXTS = (
    "Collective ops is aborted",
    "Socket closed",
    "Connection reset by peer",
    "failed to connect to all addresses",
)


def qualified_name(exception: BaseException) -> str:
    """The class as a traceback names it."""
    kind = type(exception)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def is_peer_lost(exception: BaseException) -> bool:
    """Whether this is what losing another member looks like.

    True if the exception or any one that Python would print above it says so: its `__cause__`,
    else its `__context__` unless `from None` hid that. Causes count because people wrap ("training
    failed" from UnavailableError). Contexts count because what fails in the handler of a lost
    peer, a last checkpoint for instance, would not have been tried otherwise. The price: a cleanup
    that runs into a lost peer hides an own error before it, in this flag, not in the traceback.
    That is the cheaper mistake, since a lost peer never decides a verdict while anything else can
    explain it, whereas an innocent taken for the culprit does. Of an exception group every member
    has to be a lost peer.
    """
    return _any_peer_lost(exception, set())


def _any_peer_lost(exception: BaseException, seen: set[int]) -> bool:
    current: BaseException | None = exception
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if _says_peer_lost(current, seen):
            return True
        current = _printed_above(current)
    return False


def _printed_above(exception: BaseException) -> BaseException | None:
    if exception.__cause__ is not None:
        return exception.__cause__
    return None if exception.__suppress_context__ else exception.__context__


def _says_peer_lost(exception: BaseException, seen: set[int]) -> bool:
    if isinstance(exception, BaseExceptionGroup):
        return all(_any_peer_lost(member, seen) for member in exception.exceptions)
    if isinstance(exception, ConnectionError):
        return True
    # By base class too: the coordinator raises PSUnavailableError(UnavailableError). The module
    # is checked because asyncio and concurrent.futures have a CancelledError of their own.
    kinds = [kind for kind in type(exception).__mro__ if kind.__module__.startswith("tensorflow")]
    if not kinds:
        return False
    # ClusterCoordinator's ClosureInputError and ClosureAbortedError keep the real one here.
    original = getattr(exception, "original_exception", None)
    if isinstance(original, BaseException) and id(original) not in seen:
        return _any_peer_lost(original, seen)
    if any(kind.__name__ in _PEER_LOST_CLASSES for kind in kinds):
        return True
    return any(text in str(exception) for text in _PEER_LOST_TEXTS)
