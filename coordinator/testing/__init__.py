"""Testing tools: a real coordinator in the test's own event loop, and fake members for it.

Nothing is mocked: fakes speak gRPC to the same server that runs in production. They need neither
Spark nor TensorFlow, and a run of three members takes a few milliseconds::

    from coordinator.core.model import Cause, ExitReport, Roles, RunPhase, RunSpec
    from coordinator.testing import Script, drive, serving

    async def test_the_first_failure_is_named():
        crash = ExitReport(Cause.USER_EXCEPTION, exception_type="ValueError", message="bad labels")
        async with serving() as coordinator:
            run = await drive(
                coordinator, RunSpec(Roles(worker=2, ps=1)), {"worker:1": Script(report=crash)}
            )
        assert run.phase is RunPhase.FAILED
        assert "worker:1" in run.failure.summary

``serving`` starts the coordinator, ``drive`` plays a whole run, ``FakeGang`` and ``FakeExecutor``
let the test take every step itself, ``ManualClock`` makes timeouts pass without waiting for them.
``FakeHost`` is a machine with GPUs for which fake executors compete.
``FakeFleet`` plays a thousand members and more from several processes. Faults are part of a
``Script``: lateness, silence, duplicates, forged tokens, lies, floods, half messages. ``FakeGpus``
gives a machine GPUs that it does not have.
"""

from coordinator.testing.clock import ManualClock
from coordinator.testing.executor import FakeExecutor
from coordinator.testing.fleet import FakeFleet, FleetFailed
from coordinator.testing.gang import FakeGang, drive
from coordinator.testing.gates import Gates
from coordinator.testing.gpus import FakeGpus
from coordinator.testing.host import FakeHost
from coordinator.testing.outcome import Outcome
from coordinator.testing.peer import HalfMessage
from coordinator.testing.script import COMPLETED, STOPPED, Moment, Script
from coordinator.testing.serving import Serving, serving
from coordinator.testing.tally import Tally

__all__ = [
    "COMPLETED",
    "STOPPED",
    "FakeExecutor",
    "FakeFleet",
    "FakeGang",
    "FakeGpus",
    "FakeHost",
    "FleetFailed",
    "Gates",
    "HalfMessage",
    "ManualClock",
    "Moment",
    "Outcome",
    "Script",
    "Serving",
    "Tally",
    "drive",
    "serving",
]
