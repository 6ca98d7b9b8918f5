"""The seam to NVML, with a stand-in for the library: these tests need neither it nor a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from executor_agent.nvml import NvmlError, open_nvml


class LibraryError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 6: "Not Found", 15: "GPU is lost"}.get(value, "?"))
        self.value = value


@dataclass
class Card:
    uuid: str
    parts: list[str | None] = field(default_factory=list)
    fails: int = 0
    is_hidden: bool = False
    pids: tuple[int, ...] = ()


@dataclass
class Library:
    """Answers as pynvml does, for these cards."""

    cards: list[Card]
    says_bytes: bool = False
    knows_second_version: bool = True
    fails: int = 0
    inits: int = 0
    NVMLError: type[Exception] = LibraryError
    NVML_ERROR_NOT_SUPPORTED: int = 3
    NVML_ERROR_NO_PERMISSION: int = 4
    NVML_ERROR_FUNCTION_NOT_FOUND: int = 13
    NVML_ERROR_GPU_IS_LOST: int = 15
    NVML_ERROR_RESET_REQUIRED: int = 16
    nvmlMemory_v2: int = 2

    def nvmlInit(self) -> None:
        self.inits += 1
        self._fail(self.fails)

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        self._fail(self.fails)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        if self.cards[index].is_hidden:
            raise LibraryError(4)
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle: Card) -> Any:
        return handle.uuid.encode() if self.says_bytes else handle.uuid

    def nvmlDeviceGetName(self, handle: Card) -> Any:
        self._fail(handle.fails)
        return b"NVIDIA H100" if self.says_bytes else "NVIDIA H100"

    def nvmlDeviceGetMigMode(self, handle: Card) -> list[int]:
        if not handle.parts:
            raise LibraryError(3)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Card) -> int:
        return len(handle.parts)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Card, index: int) -> Card:
        part = handle.parts[index]
        if part is None:
            raise LibraryError(6)
        return Card(part)

    def nvmlDeviceGetMemoryInfo(self, handle: Card, version: int | None = None) -> Any:
        if version is None:
            return SimpleNamespace(total=80, used=5)
        if not self.knows_second_version:
            raise LibraryError(13)
        return SimpleNamespace(total=80, used=1)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in handle.pids]

    def _fail(self, value: int) -> None:
        if value:
            raise LibraryError(value)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(library: Library) -> Library:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return library

    return install


def test_every_card_is_shown_once(use: Any) -> None:
    use(Library([Card("GPU-a", pids=(7, 5, 7)), Card("GPU-b")]))
    first, second = open_nvml({}).devices()
    assert (first.uuid, first.index, first.name, first.pids) == ("GPU-a", 0, "NVIDIA H100", (5, 7))
    assert (first.memory_total, first.memory_used) == (80, 1)
    assert (second.uuid, second.index) == ("GPU-b", 1)


def test_older_releases_of_library_and_driver_will_do(use: Any) -> None:
    use(Library([Card("GPU-a")], says_bytes=True, knows_second_version=False))
    [device] = open_nvml({}).devices()
    assert (device.uuid, device.name, device.memory_used) == ("GPU-a", "NVIDIA H100", 5)


def test_parts_are_shown_instead_of_the_card_that_is_split(use: Any) -> None:
    use(Library([Card("GPU-a", parts=["MIG-1", None, "MIG-2"]), Card("GPU-b")]))
    devices = open_nvml({}).devices()
    assert [device.uuid for device in devices] == ["MIG-1", "MIG-2", "GPU-b"]
    assert [device.parent for device in devices] == ["GPU-a", "GPU-a", ""]
    assert [device.index for device in devices] == [0, 0, 1]


def test_a_card_that_we_may_not_see_is_left_out(use: Any) -> None:
    use(Library([Card("GPU-a", is_hidden=True), Card("GPU-b")]))
    [device] = open_nvml({}).devices()
    assert (device.uuid, device.index) == ("GPU-b", 1)


def test_one_cards_failure_is_its_own(use: Any) -> None:
    use(Library([Card("GPU-a", fails=15), Card("GPU-b", fails=99), Card("GPU-c")]))
    lost, failing, well = open_nvml({}).devices()
    assert (lost.error, lost.is_lost) == ("GPU is lost", True)
    assert (failing.error, failing.is_lost) == ("?", False)
    assert (well.error, well.is_lost) == ("", False)


def test_after_a_failure_it_is_opened_anew(use: Any) -> None:
    library = use(Library([Card("GPU-a")]))
    nvml = open_nvml({})
    library.fails = 99
    with pytest.raises(NvmlError, match="no answer"):
        nvml.devices()
    with pytest.raises(NvmlError, match="NVIDIA driver"):
        nvml.devices()
    library.fails = 0
    assert len(nvml.devices()) == 1


def test_no_driver_says_what_is_needed(use: Any) -> None:
    """G4, G5."""
    use(Library([], fails=9))
    with pytest.raises(NvmlError, match="there must be an NVIDIA driver"):
        open_nvml({})


def test_no_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """G4, G5."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlError, match=r"pip install 'tflease\[gpu\]'"):
        open_nvml({})


def test_the_fakes_folder_must_be_there() -> None:
    with pytest.raises(NvmlError, match="which is no folder"):
        open_nvml({"TFLEASE_FAKE_NVML": "/nowhere/at/all"}).devices()
