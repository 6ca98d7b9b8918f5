"""Executes the notebooks of examples/mnist, each in a fresh kernel of this interpreter.

    python tools/run-notebooks.py                 all of them, in order; nothing in the tree changes
    python tools/run-notebooks.py --in-place      ... and keeps their outputs in the tree
    python tools/run-notebooks.py 3 4 --work-dir DIRECTORY

One line each with the seconds it took. Ends with 1 when a cell raises, and shows it. Spark needs
JAVA_HOME where Java is not on the PATH; `make test-notebooks` finds it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from tools import notebook_outputs  # noqa: E402

FOLDER = ROOT / "examples" / "mnist"
CELL_TIMEOUT = 300.0


class OwnKernels(KernelSpecManager):
    """One kernel, that of this interpreter, whatever is installed on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def notebooks() -> list[Path]:
    """In the order in which they build on each other."""
    return sorted(FOLDER.glob("[0-9]_*.ipynb"))


def execute(
    path: Path, work_dir: Path, timeout: float = CELL_TIMEOUT
) -> tuple[nbformat.NotebookNode, float]:
    """The notebook with its outputs, and the seconds that it took.

    Args:
        path: of the notebook; its folder is the kernel's working directory.
        work_dir: where it writes; what one notebook leaves there is for the next one. What the
            JVM and TensorFlow complain of is in `NAME.stderr` there.
        timeout: seconds that one cell may take.

    Raises:
        CellExecutionError, CellTimeoutError, DeadKernelError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with (
        tempfile.TemporaryDirectory(prefix="tflease-kernel-") as own,  # and not the user's home
        open(work_dir / f"{path.stem}.stderr", "wb") as stderr,
    ):
        env = {
            **os.environ,
            "TFLEASE_EXAMPLE_DIR": str(work_dir / "mnist"),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "IPYTHONDIR": own,
            "JUPYTER_CONFIG_DIR": own,
        }
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=OwnKernels(),
            connection_file=f"{own}/kernel.json",
            transport="ipc",
            ip=f"{own}/kernel",
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=int(timeout),
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
        )
        began = time.monotonic()
        # `cleanup_kc`: the kernel ends with the last cell, and whenever a cell fails.
        client.execute(env=env, stderr=stderr, cleanup_kc=True)
        return notebook, time.monotonic() - began


def end_of(path: Path, lines: int = 20) -> str:
    """The last lines of a file, without Java's stack traces."""
    text = path.read_text(errors="replace").splitlines()
    return "\n".join([each for each in text if not each.startswith("\tat ")][-lines:])


def names_of_this_machine(work_dir: Path) -> Mapping[str, str]:
    """What `notebook_outputs.kept` says instead of what is true on one machine only."""
    names = {
        (work_dir / "mnist").as_uri(): "file://WORK_DIR",
        str(work_dir / "mnist"): "WORK_DIR",
        str(ROOT): "CLONE",
        str(Path.home()) + "/": "~/",
        socket.gethostname(): "HOST",
        socket.getfqdn(): "HOST",
    }
    if java := os.environ.get("JAVA_HOME"):
        names[java] = "JAVA_HOME"
    names.pop("localhost", None)
    return names


def keep(path: Path, notebook: nbformat.NotebookNode, work_dir: Path) -> list[str]:
    """Writes the notebook with its outputs into the tree. Returns what is wrong with them."""
    notebook_outputs.kept(notebook, names_of_this_machine(work_dir))
    nbformat.write(notebook, path)
    return notebook_outputs.complaints(notebook)


def chosen(numbers: list[str]) -> list[Path]:
    """All, or those whose names begin with one of these."""
    return [path for path in notebooks() if not numbers or path.name.startswith(tuple(numbers))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="*", help="their numbers; default: all")
    parser.add_argument("--in-place", action="store_true", help="keep the outputs in the tree")
    parser.add_argument("--work-dir", type=Path, help="default: a temporary one, removed")
    parser.add_argument("--timeout", type=float, default=CELL_TIMEOUT, help="seconds per cell")
    given = parser.parse_args()
    wrong = 0
    total = 0.0
    with tempfile.TemporaryDirectory(prefix="tflease-notebooks-") as temporary:
        work_dir = (given.work_dir or Path(temporary)).absolute()
        work_dir.mkdir(parents=True, exist_ok=True)
        for path in chosen(given.notebooks):
            print(f"{path.stem:24}", end="", flush=True)
            try:
                notebook, seconds = execute(path, work_dir, given.timeout)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                print(f"failed\n{error}\nStandard error, its end:", flush=True)
                print(end_of(work_dir / f"{path.stem}.stderr"))
                return 1
            total += seconds
            print(f"{seconds:7.1f} s", flush=True)
            if given.in_place:
                found = keep(path, notebook, work_dir)
                wrong += len(found)
                print(*(f"  {each}\n" for each in found), sep="", end="")
        print(f"{'all':24}{total:7.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
