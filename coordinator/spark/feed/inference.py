"""`cluster.inference`: rows through the running members and back, as a DataFrame.

Lazy, as ``mapInArrow`` is: nothing happens before somebody wants the results, and then each of
Spark's tasks speaks with one member by itself. The driver has no part in that.
"""

from __future__ import annotations

from typing import Any

from coordinator.core.errors import InvalidRun
from coordinator.core.model import MemberPhase
from coordinator.spark import arguments, profiles, results
from coordinator.spark.feed import consumers, preflight
from coordinator.spark.feed.feeding import Feeding
from coordinator.spark.feed.output_schema import arrow_bytes, parse
from executor_agent.core.feed_values import FeedEndpoint
from executor_agent.feed.inference_task import InferenceTask
from executor_agent.feed.methods import INFERENCE

DEFAULT_FEED = INFERENCE


def inference(
    feeding: Feeding,
    data: Any,
    output_schema: Any,
    *,
    feed: str = DEFAULT_FEED,
    timeout: float = 600.0,
) -> Any:
    """A DataFrame of what the members answer to the rows of ``data``, one result for each row, in
    the order of each partition.

    Args:
        feeding: of the run.
        data: a DataFrame, with any partitioning.
        output_schema: "label bigint, score float", or a StructType: the columns of the results.
        feed: the name that ``ctx.inference_batches(..., feed=...)`` reads.
        timeout: seconds that a member may take from one result to the next.

    Raises:
        InvalidRun: arguments that make no sense; the run is not fed, or has nobody left to ask.
        NotEnoughSlots: the members hold all of Spark's slots.
        TrainingFailed, RunCancelled, CoordinatorUnavailable: the run is over.
    """
    preflight.check_is_fed(feeding.key is not None)
    seconds = arguments.seconds("timeout", timeout)
    preflight.check_feed(feed, timeout)
    preflight.check_data(data)
    if not hasattr(data, "mapInArrow"):
        raise InvalidRun(
            "inference takes a DataFrame, not an RDD: spark.createDataFrame(rdd, schema) makes one"
        )
    schema = parse(output_schema)
    endpoints = _endpoints(feeding)
    preflight.check_slots(feeding.gateway, feeding.session.view, feeding.anchor)
    assert feeding.key is not None
    key, may_return = feeding.key.for_feeders(), feeding.session.view.spec.restart.is_enabled
    patience = seconds if may_return else 0.0
    task = InferenceTask(endpoints, key, feed, arrow_bytes(schema), seconds, patience)
    return data.mapInArrow(task, schema, **_resources(feeding, data))


def _endpoints(feeding: Feeding) -> tuple[FeedEndpoint, ...]:
    """Of the members that can answer. Raises InvalidRun when there are none."""
    run = feeding.session.view
    error = (results.error_of(run) if run.settled else None) or feeding.session.lost
    if error is not None:
        raise error
    members = consumers.fed_members(feeding.roles)
    left = [
        member
        for member in members
        if consumers.member_of(run, member).phase not in (MemberPhase.EXITED, MemberPhase.STOPPED)
    ]
    if not left:
        raise InvalidRun(
            "main_fun has ended on all members: there is nobody to ask. For inference it must go "
            "on with ctx.inference_batches() until it is told to stop"
        )
    return tuple(consumers.endpoint(run, member) for member in left)


def _resources(feeding: Feeding, data: Any) -> dict[str, Any]:
    """For ``mapInArrow``: these tasks want no GPU, which the members hold."""
    profile = profiles.of_feeders(profiles.GpuSettings.of(feeding.gateway))
    if profile is None:
        return {}
    session = data.sparkSession
    if type(session).__module__.startswith("pyspark.sql.connect"):
        # The server is told of a profile through the session that is active on this thread.
        type(session)._set_default_and_active_session(session)
    return {"profile": profiles.build(profile, feeding.gateway.application_id)}
