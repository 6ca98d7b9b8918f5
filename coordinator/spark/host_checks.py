"""Facts about executors' hosts in, lines for people out; every failed one says what to do.

Owns what counts as good. Asks nobody. Hosts of which the same is to be said share their words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coordinator.check import Check, failed, note, ok, why_outside
from coordinator.spark import network_checks
from coordinator.spark.host_lines import count, grouped, judged, shared
from coordinator.spark.network_checks import Driver
from executor_agent.examination import Facts

LEAST_FREE = 64 << 20
"""Bytes on the disk of the members' directory: less, and logs and outcomes cannot be written."""

WANTED_FREE = 1 << 30
"""What logs, results and local checkpoints soon take."""

WANTED_FILES = 1024
"""Descriptors: each member holds a connection to every other one, and its data files."""

WANTED_PROCESSES = 4096
"""Of the user, on the host: each thread counts, and TensorFlow starts a pool of them for each
core."""

_REPORT = "please report this"


def lines(driver: Driver, tasks: Sequence[Facts]) -> Iterator[Check]:
    """One or more a subject."""
    hosts = list({each.hostname: each for each in tasks if each.examined}.values())
    executors = {(each.hostname, each.executor_id) for each in tasks}
    text = f"{count(len(executors), 'executor')} on {count(len(hosts), 'host')} looked at, by "
    yield ok("executors", f"{text}{count(len(tasks), 'task')}")
    yield from _software(driver, tasks, hosts)
    yield from _host(hosts)
    yield from network_checks.lines(driver, hosts)
    yield from _gpus(tasks, hosts)
    yield _leftovers(hosts)
    unseen = {
        each.hostname: "; ".join(f"{name}: {why}" for name, why in sorted(each.unseen.items()))
        for each in hosts
        if each.unseen
    }
    if unseen:
        yield failed("not looked at", grouped(unseen), _REPORT)


# -- software ------------------------------------------------------------------------------


def _software(driver: Driver, tasks: Sequence[Facts], hosts: Sequence[Facts]) -> Iterator[Check]:
    def other_python(facts: Facts) -> str:
        same = facts.python.split(".")[:2] == driver.python.split(".")[:2]
        return "" if same else f"{facts.python}, but the driver's is {driver.python}"

    yield judged(
        "Python there",
        tasks,
        other_python,
        lambda facts: f"{facts.python} ({facts.executable})",
        "set PYSPARK_PYTHON to an interpreter of the driver's minor version",
    )

    def other_tflease(facts: Facts) -> str:
        there = facts.versions.get("tflease") or "not installed as a package"
        return "" if there == driver.tflease else f"{there}, but the driver's is {driver.tflease}"

    yield judged(
        "tflease there",
        hosts,
        other_tflease,
        lambda facts: facts.versions["tflease"],
        f"install tflease {driver.tflease} there: into the interpreter of PYSPARK_PYTHON, or into "
        "the archive that Spark ships",
    )
    for package in ("grpcio", "protobuf", "pyarrow"):
        yield _package(package, hosts, "tflease")
    yield judged(
        "agent there",
        hosts,
        lambda facts: "; ".join(
            f"{name}: {why}" for name, why in facts.imports.items() if why and name != "tensorflow"
        ),
        lambda _: "can be imported",
        "repair the installation of the executors' Python: pip install 'tflease[tensorflow]'",
    )
    yield from _tensorflow(hosts)
    yield _java(driver, tasks)


def _package(name: str, hosts: Sequence[Facts], requirement: str) -> Check:
    def problem(facts: Facts) -> str:
        version = facts.versions.get(name)
        return why_outside(name, version) if version else "not installed"

    return judged(
        f"{name} there",
        hosts,
        problem,
        lambda facts: facts.versions[name],
        f"in the executors' Python: pip install '{requirement}'",
    )


def _tensorflow(hosts: Sequence[Facts]) -> Iterator[Check]:
    name = "tensorflow there"

    def problem(facts: Facts) -> str:
        version = facts.versions.get("tensorflow")
        if version is None:
            return "not installed"
        return why_outside("tensorflow", version) or facts.imports.get("tensorflow", "")

    line = judged(
        name,
        hosts,
        problem,
        lambda facts: f"{facts.versions['tensorflow']}, can be imported",
        "in the executors' Python: pip install 'tflease[tensorflow]'; where the import is ended by "
        "a signal, the processor may lack what TensorFlow was built for",
    )
    yield line
    found = {each.hostname: each.versions.get("tensorflow", "") for each in hosts}
    if len(set(found.values())) > 1:
        yield note(
            name,
            grouped(found),
            "install the same version everywhere: members of different ones may not understand "
            "each other",
        )


def _java(driver: Driver, tasks: Sequence[Facts]) -> Check:
    found = {each.hostname: each.java or "not known" for each in tasks if each.examined}
    text = shared(found)
    majors = {each.java.partition(".")[0] for each in tasks if each.java}
    if driver.java and majors - {driver.java.partition(".")[0]}:
        return note(
            "Java there",
            f"{text}, and the driver's is {driver.java}",
            "run driver and executors with the same Java, as Spark recommends",
        )
    return ok("Java there", text)


# -- the host ------------------------------------------------------------------------------


def _host(hosts: Sequence[Facts]) -> Iterator[Check]:
    yield judged(
        "kernel there",
        hosts,
        lambda facts: facts.kernel,
        lambda _: "with pidfds",
        "probably a seccomp profile: let it allow pidfd_open and pidfd_send_signal; without them "
        "the end of a task is noticed up to a quarter second later",
        otherwise=note,
    )
    yield judged(
        "directory there",
        hosts,
        lambda facts: facts.home.get("problem", ""),
        lambda facts: str(facts.home.get("path", "")),
        "set TFLEASE_HOME for the executors (spark.executorEnv.TFLEASE_HOME) to a directory that "
        "only their user can write to",
    )
    yield _disk(hosts)
    yield judged(
        "address space there",
        hosts,
        _limited_address_space,
        lambda _: "unlimited",
        "TensorFlow would die in strange ways: unset spark.executor.pyspark.memory, or ulimit -v "
        "unlimited for Spark's workers",
    )
    yield judged(
        "limits there",
        hosts,
        _tight_limits,
        lambda facts: f"{_limit(facts, 'nofile')} descriptors, {_limit(facts, 'nproc')} processes",
        "raise them where Spark's workers are started (LimitNOFILE=, LimitNPROC= with systemd, or "
        "limits.conf)",
        otherwise=note,
    )


def _disk(hosts: Sequence[Facts]) -> Check:
    name = "disk there"
    free = {each.hostname: int(each.home.get("free_bytes", 0)) for each in hosts if each.home}
    files = {each.hostname: int(each.home.get("free_files", 1)) for each in hosts if each.home}
    texts = {
        host: f"{value >> 20} MiB free" + ("" if files[host] > 0 else ", but no files")
        for host, value in free.items()
    }
    advice = "make room there, or set TFLEASE_HOME for the executors to a larger disk"
    lacking = {host: value for host, value in free.items() if value < WANTED_FREE}
    full = [host for host in free if free[host] < LEAST_FREE or files[host] <= 0]
    if full:
        return failed(name, grouped({host: texts[host] for host in full}), advice)
    if lacking:
        return note(name, grouped({host: texts[host] for host in lacking}), advice)
    return ok(name, f"at least {min(free.values(), default=0) >> 20} MiB free")


def _limited_address_space(facts: Facts) -> str:
    limit = facts.limits.get("address space")
    return "" if limit is None else f"limited to {limit >> 20} MiB"


def _tight_limits(facts: Facts) -> str:
    wanted = (("nofile", WANTED_FILES, "descriptors"), ("nproc", WANTED_PROCESSES, "processes"))
    return ", ".join(
        f"{limit} {what}, which may be too few"
        for name, least, what in wanted
        if (limit := facts.limits.get(name)) is not None and limit < least
    )


def _limit(facts: Facts, name: str) -> str:
    limit = facts.limits.get(name)
    return "any number of" if limit is None else str(limit)


# -- GPUs and what is left -----------------------------------------------------------------


def _gpus(tasks: Sequence[Facts], hosts: Sequence[Facts]) -> Iterator[Check]:
    is_assigned = any(each.assigned is not None for each in tasks)

    def problem(facts: Facts) -> str:
        wanted = is_assigned or facts.gpus.get("has_driver") or facts.gpus.get("devices")
        return str(facts.gpus.get("problem", "")) if wanted else ""

    def good(facts: Facts) -> str:
        devices = facts.gpus.get("devices", [])
        return ", ".join(devices) if devices else "none"

    yield judged(
        "GPUs there",
        hosts,
        problem,
        good,
        "let NVML answer there (nvidia-smi; pip install 'tflease[gpu]'), and let Spark's discovery "
        "script print what NVML shows",
    )
    errors = {
        each.hostname: "; ".join(each.gpus["errors"]) for each in hosts if each.gpus.get("errors")
    }
    if errors:
        yield note("GPUs there", grouped(errors), "reset these GPUs, or restart the machine")
    claims = [each for each in hosts if each.gpu_claims]
    yield judged(
        "GPU claims",
        claims,
        lambda facts: "; ".join(
            filter(None, (_claims_directory(facts), *facts.gpu_claims.get("unusable", ())))
        ),
        lambda facts: "; ".join(facts.gpu_claims.get("held", ())) or "nobody holds a GPU",
        "chmod 1777 the directory and 666 the files of claims, and remove those that cannot be "
        "understood while nobody uses the GPU; or set TFLEASE_GPU_CLAIMS to another directory",
    )
    gone = {
        each.hostname: ", ".join(each.gpu_claims["gone"])
        for each in claims
        if each.gpu_claims.get("gone")
    }
    if gone:
        yield note(
            "GPU claims",
            f"of GPUs that are not there: {grouped(gone)}",
            "remove those files if the GPUs were taken out for good",
        )


def _claims_directory(facts: Facts) -> str:
    problem = facts.gpu_claims.get("problem", "")
    return f"{facts.gpu_claims['directory']} {problem}" if problem else ""


def _leftovers(hosts: Sequence[Facts]) -> Check:
    found = {
        each.hostname: "; ".join([*each.leftovers.get("found", ()), *_broken(each)])
        for each in hosts
        if each.leftovers.get("found") or each.leftovers.get("broken")
    }
    if found:
        return note(
            "left behind",
            grouped(found),
            "the next member there ends it; at once: `tflease reap --yes` on that host, as the "
            "user that executors run as. Claims that cannot be understood can be removed",
        )
    living = sum(int(each.leftovers.get("living", 0)) for each in hosts)
    text = f"nothing; {count(living, 'member')} of runs at work" if living else "nothing"
    return ok("left behind", text)


def _broken(facts: Facts) -> list[str]:
    return [f"{path} cannot be understood" for path in facts.leftovers.get("broken", ())]
