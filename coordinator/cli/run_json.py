"""Runs and GPUs as JSON, with names that stay (docs/operations.md lists them)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from coordinator.core.gpu import LeaseView
from coordinator.core.model import (
    ExitReport,
    Failure,
    MemberPhase,
    MemberView,
    Restart,
    RunView,
)

JsonObject = dict[str, Any]


def run_summary(run: RunView) -> JsonObject:
    """A run without its members."""
    phases = [member.phase for member in run.members]
    return {
        "id": run.run_id,
        "name": run.spec.name,
        "phase": run.phase.value,
        "created_at": time_text(run.created_at),
        "generation": run.generation,
        "settled": run.settled,
        "stop_reason": run.stop_reason or None,
        "members_total": len(phases),
        "members_ready": phases.count(MemberPhase.READY),
        "members_running": phases.count(MemberPhase.RUNNING),
        "gpus_total": sum(run.spec.gpus.count(member.id.role) for member in run.members),
        "gpus_granted": sum(len(member.gpus) for member in run.members),
        "members_ended": sum(phase.has_ended for phase in phases),
        "waiting_for": list(run.diagnosis),
        "failure": _failure(run.failure),
        "restart_count": run.restart_count,
    }


def run_with_members(run: RunView) -> JsonObject:
    """All of it."""
    return {
        **run_summary(run),
        "restart_at": None if run.restart_at is None else time_text(run.restart_at),
        "restarts": [_restart(restart) for restart in run.restarts],
        "members": [_member(member) for member in run.members],
    }


def _restart(restart: Restart) -> JsonObject:
    return {
        "at": time_text(restart.at),
        "generation": restart.generation,
        "cause": restart.cause.value,
        "summary": restart.summary,
        "member": str(restart.member) if restart.member else None,
        "host": restart.host or None,
        "step": restart.step,
        "alone": restart.alone,
    }


def _member(member: MemberView) -> JsonObject:
    executor = member.executor
    return {
        "id": str(member.id),
        "phase": member.phase.value,
        "phase_at": time_text(member.phase_at),
        "host": executor.hostname if executor else None,
        "executor_id": (executor.executor_id or None) if executor else None,
        "directory": (executor.directory or None) if executor else None,
        "leftovers": list(executor.leftovers) if executor else [],
        "address": member.endpoint.address if member.endpoint else None,
        "attempt": member.incarnation,
        "step": member.step,
        "section": member.section.value,
        # What JSON has no number for: not a number, infinity.
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in member.metrics.items()
        },
        "gpus": list(member.gpus),
        "gpu_obstacles": list(member.gpu_obstacles),
        "exit": _exit(member.exit),
    }


def _exit(report: ExitReport | None) -> JsonObject | None:
    if report is None:
        return None
    return {
        "cause": report.cause.value,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "killed_by_us": report.killed_by_us,
        "reason": report.reason or None,
        "exception_type": report.exception_type or None,
        "message": report.message or None,
        "proof": report.proof.value,
        "survivors": list(report.survivors),
        "gpus": [
            {
                "uuid": gpu.uuid,
                "free": gpu.is_free,
                "holder": gpu.holder or None,
                "pids": list(gpu.pids),
            }
            for gpu in report.gpus
        ],
    }


def lease(gpu: LeaseView) -> JsonObject:
    """A GPU of the coordinator's book."""
    return {
        "uuid": gpu.uuid,
        "state": gpu.state.value,
        "since": time_text(gpu.since),
        "host": gpu.hostname,
        "boot_id": gpu.boot_id,
        "name": gpu.name or None,
        "holder": gpu.holder or None,
        "who": gpu.who or None,
        "token": str(gpu.token) if gpu.token else None,
        "expires_at": None if gpu.expires_at is None else time_text(gpu.expires_at),
        "reason": gpu.reason or None,
        "pids": list(gpu.pids),
    }


def _failure(failure: Failure | None) -> JsonObject | None:
    if failure is None:
        return None
    return {
        "cause": failure.cause.value,
        "member": str(failure.member) if failure.member else None,
        "summary": failure.summary,
        "others": list(failure.others),
    }


def time_text(unix: float) -> str:
    """ISO 8601, UTC, in milliseconds: "2026-01-31T12:00:00.000Z"."""
    text = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
