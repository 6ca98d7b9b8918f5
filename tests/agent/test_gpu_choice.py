"""What addresses, indexes and visible sets mean, and when a GPU is free."""

from __future__ import annotations

import pytest

from executor_agent.core.gpu_choice import MIB, Choice, Device, Surroundings, choose, in_use

H100 = "NVIDIA H100 80GB HBM3"
GIB = 1024 * MIB


def gpu(uuid: str, index: int, name: str = H100, **values: object) -> Device:
    return Device(uuid, index, name, 80 * GIB, 0, **values)  # type: ignore[arg-type]


TWO = (gpu("GPU-aa11", 0), gpu("GPU-bb22", 1))
MIG = (
    gpu("MIG-1111", 0, "NVIDIA H100 MIG 3g.40gb", parent="GPU-cc33"),
    gpu("MIG-2222", 0, "NVIDIA H100 MIG 3g.40gb", parent="GPU-cc33"),
)
ONE_PART = (gpu("MIG-3333", 0, parent="GPU-dd44"),)
UNLIKE = (gpu("GPU-aa11", 0, "NVIDIA T4"), gpu("GPU-bb22", 1, H100))


def chosen(
    devices: tuple[Device, ...],
    assigned: tuple[str, ...] | None = None,
    cuda: str | None = None,
    order: str | None = None,
    container: str | None = None,
) -> Choice:
    return choose(devices, assigned, Surroundings(cuda, order, container))


def test_without_a_word_from_anybody_all_that_nvml_shows_is_ours() -> None:
    assert chosen(TWO) == Choice(("GPU-aa11", "GPU-bb22"), is_assigned=False)


def test_no_gpu_is_said_to_be_none() -> None:
    """G4: an empty list has a reason."""
    assert chosen(()) == Choice((), False, "NVML shows no GPU here")
    assert chosen((), ("0",)) == Choice((), True, "NVML shows no GPU here")


@pytest.mark.parametrize(
    "devices, address, uuid",
    [
        (TWO, "1", "GPU-bb22"),
        (TWO, " 0 ", "GPU-aa11"),
        (TWO, "GPU-bb22", "GPU-bb22"),
        (TWO, "GPU-bb", "GPU-bb22"),  # as CUDA, which takes a unique beginning
        (MIG, "MIG-2222", "MIG-2222"),
        (ONE_PART, "0", "MIG-3333"),
        (ONE_PART, "GPU-dd44", "MIG-3333"),
    ],
)
def test_an_address_of_spark_becomes_the_uuid_that_nvml_shows(
    devices: tuple[Device, ...], address: str, uuid: str
) -> None:
    """G6."""
    assert chosen(devices, (address,)) == Choice((uuid,), is_assigned=True)


@pytest.mark.parametrize(
    "devices, address, why",
    [
        (TWO, "2", "NVML does not show it here, only 0: GPU-aa11, 1: GPU-bb22"),
        (TWO, "-1", "-1 names no GPU"),
        (TWO, "GPU-99", "NVML does not show it here"),
        (TWO, "MIG-1111", "NVML does not show it here"),
        (TWO, "GPU-", "may mean any of 0: GPU-aa11, 1: GPU-bb22; name one of them by its UUID"),
        (TWO, "gpu0", "neither an index nor the UUID"),
        (TWO, "", "neither an index nor the UUID"),
        (MIG, "0", "may mean any of 0: MIG-1111, 0: MIG-2222; name one of them by its UUID"),
        (MIG, "GPU-cc33", "may mean any of"),
        ((gpu("GPU-aa11", -1), gpu("GPU-bb22", -1)), "0", "NVML does not show it here"),
    ],
)
def test_an_address_that_means_no_one_device_gives_none_and_says_why(
    devices: tuple[Device, ...], address: str, why: str
) -> None:
    """G4: never another one instead."""
    choice = chosen(devices, (address,))
    assert choice.uuids == ()
    assert choice.is_assigned
    assert why in choice.problem
    assert repr(address) in choice.problem


def test_what_is_wrong_with_one_address_does_not_hide_the_others() -> None:
    choice = chosen(TWO, ("7", "1", "GPU-bb22"))
    assert choice.uuids == ("GPU-bb22",)
    assert "'7'" in choice.problem


def test_a_task_that_spark_gave_nothing_has_nothing() -> None:
    """G4: the first that is free would be another task's."""
    assert chosen(TWO, ()) == Choice((), True, "Spark assigned none to the task")


@pytest.mark.parametrize(
    "cuda, uuids",
    [
        ("0", ["GPU-aa11"]),
        ("1,0", ["GPU-aa11", "GPU-bb22"]),
        ("GPU-bb22", ["GPU-bb22"]),
        ("GPU-bb", ["GPU-bb22"]),
        (" 1 ", ["GPU-bb22"]),
        ("0,-1,1", ["GPU-aa11"]),  # CUDA stops at the first that is none
        ("0,7,1", ["GPU-aa11"]),
        ("all", ["GPU-aa11", "GPU-bb22"]),
        ("0,0", ["GPU-aa11"]),
    ],
)
def test_what_cuda_may_see_is_all_that_there_is(cuda: str, uuids: list[str]) -> None:
    """G6: the resource manager has exported it."""
    assert chosen(TWO, cuda=cuda).uuids == tuple(uuids)


@pytest.mark.parametrize("cuda", ["", "-1", "-1,0", "NoDevFiles", "none", "void", "rubbish"])
def test_a_hidden_gpu_is_none_and_the_variable_is_named(cuda: str) -> None:
    """G4, G6."""
    choice = chosen(TWO, cuda=cuda)
    assert choice.uuids == ()
    assert f"CUDA_VISIBLE_DEVICES is {cuda!r}" in choice.problem


@pytest.mark.parametrize("cuda", ["", "-1", "0", "GPU-aa11"])
def test_assigned_by_spark_but_not_visible_is_an_error_with_both(cuda: str) -> None:
    """G6: neither of the two is overruled."""
    choice = chosen(TWO, ("1",), cuda=cuda)
    assert choice.uuids == ()
    assert "'1' (GPU-bb22), which is not visible here" in choice.problem
    assert f"CUDA_VISIBLE_DEVICES is {cuda!r}" in choice.problem


def test_an_index_means_one_thing_only_where_cuda_counts_as_nvml_does() -> None:
    """CUDA's 0 is the fastest GPU, NVML's the first on the bus."""
    assert chosen(UNLIKE, cuda="0").uuids == ()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in chosen(UNLIKE, cuda="0").problem
    assert chosen(UNLIKE, cuda="0", order="PCI_BUS_ID").uuids == ("GPU-aa11",)
    assert chosen(UNLIKE, cuda="GPU-bb22").uuids == ("GPU-bb22",)
    assert chosen(UNLIKE, cuda="1,0").uuids == ("GPU-aa11", "GPU-bb22")  # all, in any order


@pytest.mark.parametrize(
    "container, uuids",
    [
        ("all", ["GPU-aa11", "GPU-bb22"]),
        ("", ["GPU-aa11", "GPU-bb22"]),
        ("void", ["GPU-aa11", "GPU-bb22"]),  # devices came in by other means
        ("3", ["GPU-aa11", "GPU-bb22"]),  # an index of the host
        ("GPU-bb22", ["GPU-bb22"]),
        ("none", []),
        ("GPU-99", []),
    ],
)
def test_the_containers_set_counts_where_it_can_be_checked(
    container: str, uuids: list[str]
) -> None:
    """G6."""
    assert chosen(TWO, container=container).uuids == tuple(uuids)


def test_the_containers_gpu_means_its_parts() -> None:
    assert chosen(MIG, container="GPU-cc33").uuids == ("MIG-1111", "MIG-2222")


def test_a_gpu_that_fell_off_the_bus_is_not_offered() -> None:
    """G4."""
    lost = (gpu("GPU-aa11", 0, error="GPU is lost", is_lost=True), TWO[1])
    assert chosen(lost) == Choice(("GPU-bb22",), False, "GPU-aa11: GPU is lost")
    assert chosen(lost, ("0",)).problem.endswith("(GPU-aa11): GPU is lost")


# -- the rule of free ----------------------------------------------------------------------


def using(memory: int, **values: object) -> Device:
    return Device("GPU-aa11", 0, H100, 80 * GIB, memory, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "memory, baseline, is_free",
    [
        (0, None, True),
        (1024 * MIB, None, True),
        (1025 * MIB, None, False),
        (0, 500 * MIB, True),
        (564 * MIB, 500 * MIB, True),
        (565 * MIB, 500 * MIB, False),
        (64 * MIB, 0, True),
        (65 * MIB, 0, False),
    ],
)
def test_memory_is_to_be_as_before(memory: int, baseline: int | None, is_free: bool) -> None:
    """G1, O10: of a process whose number is not known here, too."""
    assert (in_use(using(memory), (), baseline) == "") == is_free


def test_a_living_process_is_in_the_way_whatever_memory_it_uses() -> None:
    assert in_use(using(0, pids=(17,)), [17], 0) == "a process"
    assert in_use(using(0, pids=(17, 18, 19)), [17, 19], 0) == "2 processes"
    assert in_use(using(0, pids=(17,)), [], 0) == ""


def test_in_a_container_numbers_of_processes_do_not_tell() -> None:
    """They are the host's: memory decides."""
    device = using(10 * MIB, pids=(17,), pids_are_ours=False)
    assert in_use(device, [17], 0) == ""


def test_where_memory_is_not_told_it_does_not_decide() -> None:
    assert in_use(Device("GPU-aa11", 0, "NVIDIA GB10", 0, 0), (), 0) == ""


def test_a_lost_gpu_is_never_free() -> None:
    """O11."""
    assert "reset the GPU" in in_use(using(0, error="GPU is lost", is_lost=True), (), None)
