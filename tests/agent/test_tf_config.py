"""TF_CONFIG as TensorFlow's own resolvers and strategies read it."""

import pytest

from executor_agent.core.tf_config import (
    build_tf_config,
    count_workers,
    is_chief,
    proxy_exceptions,
    training_cluster,
)

SPEC = {
    "chief": ["a:1"],
    "worker": ["b:1", "c:1"],
    "ps": ["d:1"],
    "evaluator": ["e:1"],
}


def test_a_worker_is_told_its_place_and_everybody_but_the_evaluator() -> None:
    assert build_tf_config(SPEC, "worker", 1) == {
        "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]},
        "task": {"type": "worker", "index": 1},
    }


def test_the_evaluator_stands_beside_the_cluster() -> None:
    config = build_tf_config(SPEC, "evaluator", 0)
    assert "evaluator" not in config["cluster"]
    assert config["task"] == {"type": "evaluator", "index": 0}


def test_an_evaluator_needs_no_address() -> None:
    spec = {"worker": ["a:1"]}
    assert build_tf_config(spec, "evaluator", 0)["cluster"] == spec


def test_empty_roles_are_left_out() -> None:
    assert training_cluster({"chief": [], "worker": ("a:1",), "ps": []}) == {"worker": ["a:1"]}


@pytest.mark.parametrize(
    "spec, job_name, task_index, message",
    [
        ({"worker": ["a:1"]}, "worker", 1, "no worker 1 in a cluster with 1"),
        ({"worker": ["a:1"]}, "worker", -1, "no worker -1"),
        ({"worker": ["a:1"]}, "ps", 0, "no ps 0 in a cluster with 0"),
        ({"chief": ["a:1", "b:1"]}, "chief", 0, "at most one chief"),
        ({"master": ["a:1"]}, "master", 0, "not 'master'"),
        ({"worker": ["a:1"]}, "trainer", 0, "not 'trainer'"),
        (SPEC, "evaluator", 1, "no evaluator 1"),
    ],
)
def test_a_member_outside_the_cluster_is_refused(
    spec: dict[str, list[str]], job_name: str, task_index: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_tf_config(spec, job_name, task_index)


def test_the_chief_counts_as_a_worker() -> None:
    assert count_workers(SPEC) == 3
    assert count_workers({"worker": ["a:1"]}) == 1


def test_worker_0_is_chief_where_there_is_none() -> None:
    assert is_chief(SPEC, "chief", 0)
    assert not is_chief(SPEC, "worker", 0)
    assert is_chief({"worker": ["a:1", "b:1"]}, "worker", 0)
    assert not is_chief({"worker": ["a:1", "b:1"]}, "worker", 1)
    assert not is_chief({"worker": ["a:1"], "ps": ["b:1"]}, "ps", 0)
    assert not is_chief({"worker": ["a:1"]}, "evaluator", 0)


def test_members_reach_one_another_past_a_proxy() -> None:
    spec = {"worker": ["10.0.0.1:4000", "[fe80::1]:4000"], "ps": ["10.0.0.1:4001"]}
    proxied = {"http_proxy": "http://proxy:3128"}
    assert proxy_exceptions(spec, proxied) == "10.0.0.1,fe80::1"
    assert proxy_exceptions(spec, proxied | {"no_proxy": ".corp,x"}) == ".corp,x,10.0.0.1,fe80::1"
    own = proxied | {"no_proxy": "x", "no_grpc_proxy": "y"}
    assert proxy_exceptions(spec, own) == "y,10.0.0.1,fe80::1"


def test_without_a_proxy_nothing_is_said() -> None:
    assert proxy_exceptions({"worker": ["10.0.0.1:4000"]}, {"no_proxy": "x"}) is None
