"""All six notebooks, in order, each in a fresh kernel: `make test-notebooks`. Minutes, not seconds,
so that `make test` leaves it out.

What one leaves below the work directory is what the next one begins with, as for a reader.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebooks.runner import runner

pytestmark = [
    pytest.mark.spark,
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]


def test_all_notebooks_execute_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MNIST", "EXAMPLE_STORE", "EXAMPLE_MASTER"):  # what everybody has
        monkeypatch.delenv(f"TFLEASE_{name}", raising=False)
    run = runner()
    total = 0.0
    for path in run.notebooks():
        notebook, seconds = run.execute(path, tmp_path)  # raises what a cell raises
        total += seconds
        with capsys.disabled():
            print(f"\n{path.stem:24}{seconds:7.1f} s", end="", flush=True)
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))
        run.notebook_outputs.kept(notebook, run.names_of_this_machine(tmp_path))
        assert not run.notebook_outputs.complaints(notebook)
    with capsys.disabled():
        print(f"\n{'all':24}{total:7.1f} s")


def test_a_cell_that_raises_is_a_failure_and_its_kernel_ends(tmp_path: Path) -> None:
    """The check for leaked processes sees to the second half."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    cells = [nbformat.v4.new_code_cell("1 / 0")]
    path = tmp_path / "9_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        runner().execute(path, tmp_path)
