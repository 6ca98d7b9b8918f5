"""The user's function and arguments as opaque bytes: pickled here, opened only in the member's own
process on an executor. They never pass through the coordinator."""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from coordinator.core.errors import InvalidRun, PayloadNotPicklable


def pack(main_fun: Callable[..., Any], args: Any) -> bytes:
    """Pickles ``(main_fun, args)``.

    A function from a module that is not installed (a script's helper module, a notebook's
    ``train.py``) is pickled by value with its module's functions and globals, so that executors
    need no copy of that file. Modules that it imports in turn must be there, or be shipped with
    ``SparkContext.addPyFile``.

    Raises InvalidRun when ``main_fun`` is no function of two arguments, PayloadNotPicklable
    naming the object that cannot be sent.
    """
    _check_signature(main_fun)
    with _by_value(_module_of(main_fun)):
        try:
            return bytes(cloudpickle.dumps((main_fun, args)))
        except Exception as error:
            culprit = _culprit(main_fun, args)
            raise PayloadNotPicklable(
                f"{culprit} cannot be sent to the executors ({type(error).__name__}: {error}). "
                "Make it inside main_fun, or pass what it is made from",
                {"object": culprit},
            ) from error


def _check_signature(main_fun: Callable[..., Any]) -> None:
    if not callable(main_fun):
        raise InvalidRun(f"main_fun must be a function main_fun(args, ctx), not {main_fun!r}")
    try:
        signature = inspect.signature(main_fun)
    except (TypeError, ValueError):
        return  # a builtin or an extension's function: it will say so itself
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise InvalidRun(f"main_fun must take two arguments, (args, ctx): {error}") from None


def _module_of(main_fun: Callable[..., Any]) -> ModuleType | None:
    while isinstance(main_fun, functools.partial):  # which itself is of functools
        main_fun = main_fun.func
    return sys.modules.get(getattr(main_fun, "__module__", "") or "")


_REGISTRY = threading.Lock()
"""cloudpickle has one registry for the process: another thread must not undo ours."""


@contextmanager
def _by_value(module: ModuleType | None) -> Iterator[None]:
    if module is None or module.__name__ == "__main__" or _is_installed(module):
        yield
        return
    with _REGISTRY:
        if module.__name__ in list_registry_pickle_by_value():  # the user's own wish, which stays
            yield
            return
        cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return True  # built in, or a namespace: by name or not at all
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    path = Path(file).resolve()
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def _culprit(main_fun: Callable[..., Any], args: Any) -> str:
    for name, value in _parts(main_fun, args):
        try:
            cloudpickle.dumps(value)
        except Exception:
            return f"{name} ({type(value).__module__}.{type(value).__qualname__})"
    return "main_fun or its arguments"


def _parts(main_fun: Callable[..., Any], args: Any) -> Iterator[tuple[str, Any]]:
    """The smallest things that can be named, arguments first."""
    if isinstance(args, dict):
        yield from ((f"args[{key!r}]", value) for key, value in args.items())
    elif isinstance(args, (list, tuple)):
        yield from ((f"args[{index}]", value) for index, value in enumerate(args))
    elif hasattr(args, "__dict__"):
        yield from ((f"args.{name}", value) for name, value in vars(args).items())
    yield "args", args
    try:
        used = inspect.getclosurevars(inspect.unwrap(main_fun))
    except (TypeError, ValueError):
        pass  # no Python function, or one with a variable that is not set yet
    else:
        for name, value in {**used.globals, **used.nonlocals}.items():
            yield f"the variable {name!r} that main_fun uses", value
    yield "main_fun", main_fun
