"""What TensorFlow is told about the cluster: the `TF_CONFIG` of one member.

PURE. The conventions are TensorFlow's (`tf.distribute.cluster_resolver`, `multi_worker_util`):

- "chief" is a worker too, there is at most one, and where there is none worker 0 is the chief.
- The evaluator stands beside the training cluster: it appears in nobody's "cluster", its own
  `TF_CONFIG` names it in "task" alone. Were it listed, strategies that connect to every member
  they know would wait for a server that an evaluator never starts.
- An empty role is left out: `ParameterServerStrategy` decides by which keys there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

CHIEF = "chief"
WORKER = "worker"
PS = "ps"
EVALUATOR = "evaluator"
JOB_NAMES = (CHIEF, WORKER, PS, EVALUATOR)

ClusterSpec = Mapping[str, Sequence[str]]


def training_cluster(cluster_spec: ClusterSpec) -> dict[str, list[str]]:
    """The members TensorFlow may connect to: without evaluators and empty roles."""
    return {
        job: list(addresses)
        for job, addresses in cluster_spec.items()
        if job != EVALUATOR and addresses
    }


def build_tf_config(cluster_spec: ClusterSpec, job_name: str, task_index: int) -> dict[str, Any]:
    """The value of `TF_CONFIG`, before it is written as JSON.

    Args:
        cluster_spec: "host:port" of every member, by role, in the order of their indices.
        job_name: this member's role.
        task_index: this member's index in its role.

    Raises:
        ValueError: a role TensorFlow does not know, two chiefs, or a member that is not in the
            cluster.
    """
    unknown = sorted(set(cluster_spec) - set(JOB_NAMES))
    if unknown:
        raise ValueError(f"TensorFlow knows the roles {', '.join(JOB_NAMES)}, not {unknown[0]!r}")
    if len(cluster_spec.get(CHIEF, ())) > 1:
        raise ValueError("a cluster has at most one chief")
    if job_name not in JOB_NAMES:
        raise ValueError(f"TensorFlow knows the roles {', '.join(JOB_NAMES)}, not {job_name!r}")
    members = len(cluster_spec.get(job_name, ()))
    listed = job_name != EVALUATOR or members > 0  # evaluators need no address of their own
    if task_index < 0 or (listed and task_index >= members):
        raise ValueError(f"no {job_name} {task_index} in a cluster with {members} of that role")
    return {
        "cluster": training_cluster(cluster_spec),
        "task": {"type": job_name, "index": task_index},
    }


def count_workers(cluster_spec: ClusterSpec) -> int:
    """How many members train: the workers and the chief."""
    return len(cluster_spec.get(CHIEF, ())) + len(cluster_spec.get(WORKER, ()))


def is_chief(cluster_spec: ClusterSpec, job_name: str, task_index: int) -> bool:
    """Whether this member is the chief, or worker 0 of a cluster that has none."""
    if cluster_spec.get(CHIEF):
        return job_name == CHIEF
    return job_name == WORKER and task_index == 0


_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")


def proxy_exceptions(cluster_spec: ClusterSpec, environ: Mapping[str, str]) -> str | None:
    """What `no_grpc_proxy` has to be so that members reach one another; None to leave it alone.

    TensorFlow's gRPC sends its calls through a proxy named in the environment even to loopback,
    and then waits for ever. This variable is read by gRPC alone, in place of `no_proxy`, so the
    user's downloads keep their proxy.
    """
    if not any(environ.get(name) for name in _PROXY_VARIABLES):
        return None
    given = environ.get("no_grpc_proxy") or environ.get("no_proxy") or ""
    hosts = {
        address.rpartition(":")[0].strip("[]")
        for addresses in cluster_spec.values()
        for address in addresses
    }
    return ",".join([*filter(None, given.split(",")), *sorted(hosts)])
