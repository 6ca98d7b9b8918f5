"""What is checked on the driver before a train is opened, so that what cannot work is refused at
once, with what to do instead."""

from __future__ import annotations

import re
from typing import Any

from coordinator.core.errors import InvalidRun, NotEnoughSlots, SparkUnusable
from coordinator.core.model import RunView
from coordinator.spark import arguments
from coordinator.spark.feed import schema
from coordinator.spark.gateway import Gateway
from coordinator.spark.preflight import capacity

_FEED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")

_SPECULATION = "spark.speculation"


def check_epochs(num_epochs: object) -> int:
    """Raises InvalidRun: 0 epochs are a slip, and are not taken for a default (F9)."""
    if isinstance(num_epochs, bool) or not isinstance(num_epochs, int):
        raise InvalidRun(f"num_epochs must be an int, not {num_epochs!r}")
    if num_epochs < 1:
        raise InvalidRun(f"num_epochs={num_epochs}: at least 1; each row is fed once an epoch")
    return num_epochs


def check_on_restart(on_restart: object) -> None:
    """Raises InvalidRun."""
    if on_restart not in ("resume", "repeat"):
        raise InvalidRun(
            f'on_restart={on_restart!r}: "resume" sends what the members had not read when '
            'the gang was restarted, "repeat" begins the epoch again'
        )


def check_feed(feed: object, feed_timeout: object) -> None:
    """Raises InvalidRun."""
    if not isinstance(feed, str) or not _FEED_NAME.fullmatch(feed):
        raise InvalidRun(
            f"feed={feed!r}: a feed's name has 1 to 64 letters, digits, dots, dashes and "
            "underscores, and begins with a letter or digit"
        )
    arguments.seconds("feed_timeout", feed_timeout)


def check_is_fed(is_fed: bool) -> None:
    """Raises InvalidRun for a run that reads its data itself."""
    if not is_fed:
        raise InvalidRun(
            "this run reads its data itself: pass input_mode=InputMode.SPARK to TFCluster.run for "
            "one that Spark feeds"
        )


def check_data(data: Any) -> None:
    """Raises InvalidRun when it is neither a DataFrame nor an RDD, FeedMismatch for columns that
    cannot be fed."""
    module = type(data).__module__
    if module.startswith("pyspark.streaming"):
        raise InvalidRun(
            "a DStream cannot be fed; it is gone from current Spark: read the stream with "
            "Structured Streaming (spark.readStream...) and pass that DataFrame"
        )
    if module.startswith("pyspark.pandas"):
        raise InvalidRun("pass a DataFrame of Spark's: data.to_spark()")
    if hasattr(data, "mapInArrow") and hasattr(data, "schema"):
        schema.check_columns(data.schema)
    elif not (module.startswith("pyspark.") and hasattr(data, "mapPartitions")):
        raise InvalidRun(
            f"data must be a DataFrame or an RDD of Spark's, not {type(data).__name__}: "
            "spark.createDataFrame(...) makes one of what is on the driver"
        )


def is_streaming(data: Any) -> bool:
    """Whether it is a DataFrame of Structured Streaming."""
    return getattr(data, "isStreaming", False) is True


def check_spark(gateway: Gateway, run: RunView, anchor: str) -> None:
    """Raises SparkUnusable when Spark would run a feeder twice at once; NotEnoughSlots."""
    if gateway.conf(_SPECULATION).lower() == "true":
        raise SparkUnusable(
            f"{_SPECULATION}=true: Spark would run a task that feeds twice at once, and each would "
            f"deliver its rows: set {_SPECULATION} to false for this application"
        )
    check_slots(gateway, run, anchor)


def check_slots(gateway: Gateway, run: RunView, anchor: str) -> None:
    """Raises NotEnoughSlots when the members' tasks hold all slots that there are."""
    found = capacity(gateway)
    held = len(run.members) if anchor == "task" else 0
    if found.is_final and found.slots - held < 1:
        raise NotEnoughSlots(
            f"no slot is left to feed from: the {held} members hold a slot each, and the "
            f"application has {found.slots} ({found.how}): give Spark more executors or cores, ask "
            'for fewer members, or pass anchor="executor" to TFCluster.run, which frees the '
            "members' slots",
            {"held": str(held), "slots": str(found.slots)},
        )
