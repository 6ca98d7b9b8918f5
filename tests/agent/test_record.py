"""Record stands in for a frozen dataclass: the same promises."""

from __future__ import annotations

import pytest

from executor_agent.core.record import Record


class Point(Record):
    x: int
    y: int = 0


class Other(Record):
    x: int
    y: int = 0


class Line(Record):
    ends: tuple[Point, ...]

    def __post_init__(self) -> None:
        if len(self.ends) < 2:
            raise ValueError("too short")


def test_it_is_made_by_position_by_name_and_by_default() -> None:
    assert Point(1, 2) == Point(x=1, y=2) == Point(1, y=2)
    assert (Point(1).x, Point(1).y) == (1, 0)


def test_it_equals_only_its_own_kind() -> None:
    assert Point(1) != Other(1)
    assert Point(1) != Point(2)
    assert len({Point(1), Point(1), Other(1)}) == 2


def test_it_cannot_be_changed() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is immutable"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is immutable"):
        del point.x
    assert (point.replace(x=2), point) == (Point(2), Point(1))


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})]
)
def test_wrong_arguments_are_refused_by_name(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point: "):
        Point(*args, **kwargs)


def test_what_is_replaced_is_checked_again() -> None:
    line = Line((Point(1), Point(2)))
    with pytest.raises(ValueError, match="too short"):
        line.replace(ends=())


def test_it_becomes_plain_json_values_and_can_be_read_and_matched() -> None:
    line = Line((Point(1), Point(2)))
    assert line.to_dict() == {"ends": [{"x": 1, "y": 0}, {"x": 2, "y": 0}]}
    assert repr(Point(1)) == "Point(x=1, y=0)"
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
