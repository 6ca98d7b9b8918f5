"""The words of the record of events: what an event is called, for programs and filters.

The part before the dot says of what it tells. Words are only ever added: alerts and scripts use
them. docs/metrics.md lists them for people.
"""

from __future__ import annotations

from collections.abc import Mapping

COORDINATOR_STARTED = "coordinator.started"
COORDINATOR_RESTARTED = "coordinator.restarted"
COORDINATOR_PAUSED = "coordinator.paused"
COORDINATOR_STOPPING = "coordinator.stopping"
JOURNAL_FAILED = "journal.failed"
JOURNAL_RECOVERED = "journal.recovered"
EVENTS_MISSED = "events.missed"

RUN_CREATED = "run.created"
RUN_FORMED = "run.formed"
RUN_RESTARTING = "run.restarting"
RUN_RESTARTED = "run.restarted"
RUN_REFORMING = "run.reforming"
RUN_STOPPING = "run.stopping"
RUN_SUCCEEDED = "run.succeeded"
RUN_FAILED = "run.failed"
RUN_CANCELLED = "run.cancelled"
RUN_NOTED = "run.noted"

MEMBER_RESERVED = "member.reserved"
MEMBER_VACATED = "member.vacated"
MEMBER_COMPLETED = "member.completed"
MEMBER_STOPPED = "member.stopped"
MEMBER_FAILED = "member.failed"
MEMBER_LOST = "member.lost"
MEMBER_FENCED = "member.fenced"
MEMBER_RETURNED = "member.returned"

GPU_GRANTED = "gpu.granted"
GPU_RELEASED = "gpu.released"
GPU_LAPSED = "gpu.lapsed"
GPU_UNPROVEN = "gpu.unproven"
GPU_PROVEN = "gpu.proven"
GPU_QUARANTINED = "gpu.quarantined"
GPU_CLEARED = "gpu.cleared"
GPU_OCCUPIED = "gpu.occupied"
GPU_NOTED = "gpu.noted"

KINDS: Mapping[str, str] = {
    COORDINATOR_STARTED: "it serves, and knows of nothing from before",
    COORDINATOR_RESTARTED: "it serves, and goes on with what its journal has",
    COORDINATOR_PAUSED: "it did not run for some seconds, and has extended all clocks by them",
    COORDINATOR_STOPPING: "it was told to end: no new runs",
    JOURNAL_FAILED: "the journal cannot be written: nothing is answered until it can",
    JOURNAL_RECOVERED: "the journal is written again",
    EVENTS_MISSED: "whoever follows was too slow: some events are not kept any more",
    RUN_CREATED: "somebody asked for a run, which forms now",
    RUN_FORMED: "all of its members are there, and were told to start",
    RUN_RESTARTING: "a member failed; all are told to stop, to start again if the cause allows it",
    RUN_RESTARTED: "a failure is answered with a restart; the text has its cause",
    RUN_REFORMING: "nothing of the last generation is left; the next one forms",
    RUN_STOPPING: "its members are told to stop; the text says why",
    RUN_SUCCEEDED: "all have ended, after completion",
    RUN_FAILED: "all have ended, after a failure; the text has the first cause",
    RUN_CANCELLED: "all have ended, after somebody had stopped it",
    RUN_NOTED: "anything else about a run",
    MEMBER_RESERVED: "an agent holds the slot; the text says where",
    MEMBER_VACATED: "it is gone before the run was complete; another attempt may come",
    MEMBER_COMPLETED: "its process has ended well",
    MEMBER_STOPPED: "its process was stopped",
    MEMBER_FAILED: "its process has ended in another way; the text has the cause",
    MEMBER_LOST: "silent for the liveness time",
    MEMBER_FENCED: "silent for the fence time: its agent must have stopped it",
    MEMBER_RETURNED: "was lost, and is heard of again while the run forms",
    GPU_GRANTED: "somebody has the lease of a GPU",
    GPU_RELEASED: "it was given back, proven free",
    GPU_LAPSED: "its lease was not renewed in time",
    GPU_UNPROVEN: "its holder has ended or is lost, and nobody has seen it free since",
    GPU_PROVEN: "it was not proven free, and was found to be",
    GPU_QUARANTINED: "unproven for a minute, or put aside by an operator",
    GPU_CLEARED: "free by an operator's word",
    GPU_OCCUPIED: "somebody uses it who has no lease of it",
    GPU_NOTED: "anything else about a GPU",
}
"""Every kind, and what has happened then."""
