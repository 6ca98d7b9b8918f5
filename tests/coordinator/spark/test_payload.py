"""The user's function as bytes: what travels, and what is said when something cannot."""

from __future__ import annotations

import functools
import importlib.util
import operator
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from coordinator.core.errors import InvalidRun, PayloadNotPicklable
from coordinator.spark.payload import pack

HELPER = """
FACTOR = 3

def scaled(x):
    return FACTOR * x

def train(args, ctx):
    return scaled(args)

class Trainer:
    def __call__(self, args, ctx):
        return scaled(args)

    def train(self, args, ctx):
        return scaled(args)
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module beside the user's script, which executors do not have."""
    path = tmp_path / "helper_of_a_script.py"
    path.write_text(HELPER)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    before = list_registry_pickle_by_value()
    yield module
    assert list_registry_pickle_by_value() == before


def call_elsewhere(payload: bytes) -> str:
    """What the function returns in a process that has none of our modules."""
    code = (
        "import sys, pickle; main_fun, args = pickle.load(sys.stdin.buffer);"
        "print(main_fun(args, None))"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, input=payload, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_a_function_and_its_arguments_arrive(helper: ModuleType) -> None:
    assert call_elsewhere(pack(lambda args, ctx: args["x"] + 1, {"x": 41})) == "42"


@pytest.mark.parametrize(
    "pick",
    [
        lambda module: module.train,
        lambda module: functools.partial(module.train),
        lambda module: functools.partial(functools.partial(module.train)),
        lambda module: module.Trainer(),
        lambda module: module.Trainer().train,
    ],
    ids=["function", "partial", "partial of a partial", "callable object", "method"],
)
def test_a_module_that_is_not_installed_travels_along(
    helper: ModuleType, pick: Callable[[ModuleType], Any]
) -> None:
    """With its globals and its other functions: executors need no copy of the file."""
    assert call_elsewhere(pack(pick(helper), 14)) == "42"


def test_an_installed_function_goes_by_name() -> None:
    assert b"operator" in pack(operator.add, 1)
    assert len(pack(operator.add, 1)) < 200


def test_what_the_user_has_registered_stays_registered(helper: ModuleType) -> None:
    """R6: the process is left as it was found."""
    cloudpickle.register_pickle_by_value(helper)
    try:
        pack(helper.train, 1)
        assert helper.__name__ in list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(helper)


def test_two_threads_do_not_undo_each_other(helper: ModuleType) -> None:
    payloads: list[bytes] = []
    inside = threading.Event()

    class SlowToPickle:
        def __reduce__(self) -> Any:
            if inside.is_set():
                return int, ()
            inside.set()
            other.start()
            other.join(0.05)  # it has to wait for us
            return int, ()

    def pack_too() -> None:
        payloads.append(pack(helper.train, 14))

    other = threading.Thread(target=pack_too)
    payloads.append(pack(helper.train, SlowToPickle()))
    other.join(10)
    assert [call_elsewhere(payload) for payload in payloads] == ["0", "42"]


def test_a_module_is_forgotten_when_pickling_fails(helper: ModuleType) -> None:
    with pytest.raises(PayloadNotPicklable):
        pack(helper.train, threading.Lock())


class Namespace(SimpleNamespace):
    pass


@pytest.mark.parametrize(
    "args, name",
    [
        ({"rate": 0.1, "lock": threading.Lock()}, "args['lock']"),
        ([1, threading.Lock()], "args[1]"),
        ((threading.Lock(),), "args[0]"),
        (Namespace(lock=threading.Lock()), "args.lock"),
        (threading.Lock(), "args"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(args: Any, name: str) -> None:
    with pytest.raises(PayloadNotPicklable) as caught:
        pack(lambda args, ctx: None, args)
    assert str(caught.value).startswith(f"{name} (_thread.lock) cannot be sent")
    assert caught.value.metadata["object"].startswith(name)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_variable_that_the_function_uses_is_named() -> None:
    handle = threading.Lock()
    with pytest.raises(PayloadNotPicklable, match="the variable 'handle' that main_fun uses"):
        pack(lambda args, ctx: handle, None)


def test_a_variable_that_is_not_set_yet_does_not_hide_the_error() -> None:
    def make() -> Callable[..., Any]:
        def main_fun(args: Any, ctx: Any) -> Any:
            return later

        if not main_fun:
            later = 1
        return main_fun

    with pytest.raises(PayloadNotPicklable, match=r"args\[0\]"):
        pack(make(), [threading.Lock()])


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("on purpose")


def test_an_object_that_raises_anything_at_all_is_named() -> None:
    with pytest.raises(PayloadNotPicklable, match=r"args\[0\].*RuntimeError: on purpose"):
        pack(lambda args, ctx: None, [Unpicklable()])


@pytest.mark.parametrize("main_fun", [None, 3, "train"])
def test_what_is_no_function_is_refused(main_fun: Any) -> None:
    with pytest.raises(InvalidRun, match="main_fun must be a function"):
        pack(main_fun, None)


@pytest.mark.parametrize(
    "main_fun", [lambda: None, lambda args: None, lambda a, b, c: None, lambda *, args, ctx: None]
)
def test_a_function_of_other_arguments_is_refused(main_fun: Any) -> None:
    with pytest.raises(InvalidRun, match=r"two arguments, \(args, ctx\)"):
        pack(main_fun, None)


@pytest.mark.parametrize("main_fun", [lambda *each: None, lambda a, b, c=1: None, max])
def test_whatever_takes_two_arguments_will_do(main_fun: Any) -> None:
    assert pickle.loads(pack(main_fun, 5))[1] == 5
