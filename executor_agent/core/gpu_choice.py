"""Which of a host's GPUs a member may have, and when one of them is free.

Owns: what Spark's addresses and the visible sets of CUDA and of the container mean. An index is
looked up among the devices that NVML shows, a UUID too: nothing is assumed (G1, G6). Must not ask
anybody: devices are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIB = 1 << 20

SLACK = 64 * MIB
"""Memory above what was used before the last claim, and still as good as free."""

UNKNOWN_BASELINE = 1024 * MIB
"""What a GPU may use before anybody was seen to claim it: the driver's own, a desktop's."""

ALL = "all"

MENDING = "reset the GPU, or restart the machine"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG device, as NVML shows it; memory in bytes.

    ``index``: NVML's; that of the GPU for its MIG devices, -1 when not known. ``memory_total``: 0
    when not told. ``pids``: of processes that compute; ``pids_are_ours``: False in a container,
    where they are the host's. ``parent``: UUID of the GPU of a MIG device. ``error``: NVML's answer
    to a question about it; ``is_lost``: that no process can use it before a reset.
    """

    uuid: str
    index: int
    name: str
    memory_total: int
    memory_used: int
    pids: tuple[int, ...] = ()
    parent: str = ""
    error: str = ""
    is_lost: bool = False
    pids_are_ours: bool = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the environment says about GPUs; None: the variable is not set.

    ``cuda``: CUDA_VISIBLE_DEVICES, ``order``: CUDA_DEVICE_ORDER, ``container``:
    NVIDIA_VISIBLE_DEVICES, which container runtimes read, and leave to be read.
    """

    cuda: str | None = None
    order: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """``is_assigned``: Spark has given these to the task. ``problem``: why there are none, or not
    all that Spark has assigned; empty when all is well."""

    uuids: tuple[str, ...]
    is_assigned: bool
    problem: str = ""


def choose(
    devices: Sequence[Device], assigned: Sequence[str] | None, surroundings: Surroundings
) -> Choice:
    """Those that the member may have. ``assigned``: the addresses that Spark gave to the task,
    None where it gave none because it knows of no GPUs."""
    if not devices:
        return Choice((), assigned is not None, "NVML shows no GPU here")
    visible, why_not = _visible(devices, surroundings)
    if assigned is None:
        usable = [each for each in devices if each.uuid in visible and not each.error]
        lost = [f"{each.uuid}: {each.error}" for each in devices if each.error]
        return Choice(
            tuple(each.uuid for each in usable), False, "; ".join(filter(None, why_not + lost))
        )
    found: dict[str, None] = {}
    problems: list[str] = []
    for address in assigned:
        device = _find(devices, address)
        if isinstance(device, str):
            problems.append(f"Spark assigned the GPU {address!r}, but {device}")
        elif device.uuid not in visible:
            problems.append(
                f"Spark assigned the GPU {address!r} ({device.uuid}), which is not visible here: "
                + "; ".join(why_not or ["another set is"])
            )
        elif device.error:
            problems.append(f"Spark assigned the GPU {address!r} ({device.uuid}): {device.error}")
        else:
            found[device.uuid] = None
    if not assigned:
        problems.append("Spark assigned none to the task")
    return Choice(tuple(found), True, "; ".join(problems))


# -- the visible set -----------------------------------------------------------------------


def _visible(devices: Sequence[Device], given: Surroundings) -> tuple[set[str], list[str]]:
    """UUIDs, and what keeps the others from being among them."""
    visible = {device.uuid for device in devices}
    reasons: list[str] = []
    for name, value, allowed in (
        ("NVIDIA_VISIBLE_DEVICES", given.container, _of_container(devices, given.container)),
        ("CUDA_VISIBLE_DEVICES", given.cuda, _of_cuda(devices, given.cuda, given.order)),
    ):
        uuids, problem = allowed
        if uuids is None:
            continue
        if problem or not visible <= uuids:
            reasons.append(f"{name} is {value!r}{problem and f': {problem}'}")
        visible &= uuids
    return visible, reasons


def _of_container(devices: Sequence[Device], value: str | None) -> tuple[set[str] | None, str]:
    """None: it says nothing about what is visible. The runtime has applied it already, and NVML
    shows what was let in; it still counts in a privileged container, where NVML shows everything.
    Indexes in it are the host's, and mean nothing inside.
    """
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    # "void" is how runtimes that inject devices by other means (CDI) say that this is not theirs.
    if not names or names[0] in ("all", "void"):
        return None, ""
    if names[0] == "none":
        return set(), "it lets no GPU in"
    if not all(name.startswith(("GPU-", "MIG-")) for name in names):
        return None, ""
    uuids = {each.uuid for each in devices if each.uuid in names or each.parent in names}
    return uuids, "" if uuids else "NVML shows none of these"


def _of_cuda(
    devices: Sequence[Device], value: str | None, order: str | None
) -> tuple[set[str] | None, str]:
    """As CUDA reads it: names count up to the first that is none. None: not set."""
    if value is None:
        return None, ""
    names = [name.strip() for name in value.split(",")]
    if names[0] in ("", "-1", "NoDevFiles", "none", "void"):
        return set(), "it hides every GPU; unset it for the executor, or name the GPUs by UUID"
    if names == [ALL]:
        return None, ""
    if problem := _ambiguous_order(devices, names, order):
        return set(), problem
    uuids: set[str] = set()
    for name in names:
        device = _find(devices, name)
        if isinstance(device, str):
            return uuids, f"{name!r} in it does not count, nor what follows: {device}"
        uuids.add(device.uuid)
    return uuids, ""


def _ambiguous_order(devices: Sequence[Device], names: list[str], order: str | None) -> str:
    """CUDA by itself counts the fastest GPU first, NVML by bus: the same only among equals."""
    indexes = {name for name in names if name.isdecimal()}
    is_same = order == "PCI_BUS_ID" or len({device.name for device in devices}) == 1
    if not indexes or is_same or indexes >= {str(device.index) for device in devices}:
        return ""
    return (
        "its indexes may mean other GPUs to CUDA than to NVML, because the GPUs here differ; "
        "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID"
    )


def _find(devices: Sequence[Device], name: str) -> Device | str:
    """The one device that is meant, or why there is none."""
    name = name.strip()
    if name.isdecimal():
        found = [device for device in devices if device.index == int(name)]
    elif name.startswith(("GPU-", "MIG-")):
        found = [device for device in devices if device.uuid == name]
        # CUDA also takes the beginning of a UUID; the UUID of a GPU may mean its MIG devices.
        found = found or [device for device in devices if device.parent == name]
        found = found or [device for device in devices if device.uuid.startswith(name)]
    elif name == "-1":
        return "-1 names no GPU"
    else:
        return f"{name!r} is neither an index nor the UUID of a GPU"
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{device.index}: {device.uuid}" for device in found or devices)
    if found:
        return f"{name!r} may mean any of {shown}; name one of them by its UUID"
    return f"NVML does not show it here, only {shown}"


# -- the rule of free ----------------------------------------------------------------------


def in_use(device: Device, living: Iterable[int], baseline: int | None) -> str:
    """Who or what uses the GPU, in words; empty when nobody does.

    ``living``: those of its pids whose process lives. ``baseline``: memory used before its last
    claim, None when not known. In a container pids do not tell, memory does.
    """
    if device.is_lost:
        return f"nobody: NVML says {device.error!r}; {MENDING}"
    living = tuple(living)
    if living and device.pids_are_ours:
        return "a process" if len(living) == 1 else f"{len(living)} processes"
    limit = UNKNOWN_BASELINE if baseline is None else baseline + SLACK
    if device.memory_total and device.memory_used > limit:
        before = "" if baseline is None else f", of which {_mib(baseline)} were before its last use"
        return f"somebody whom NVML does not name: {_mib(device.memory_used)} are in use{before}"
    return ""


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
