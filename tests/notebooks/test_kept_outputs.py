"""What the repository keeps of the notebooks: executed in order, without a trace of the machine."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools import notebook_outputs

FOLDER = Path(__file__).parents[2] / "examples" / "mnist"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]_*.ipynb"))
NAMES = {"/srv/someone/clone": "CLONE", "build-7": "HOST"}
AT_HOME = "/".join(("", "home", "someone", "model"))  # in one piece no file of ours may have it


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text())
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def with_text(text: str, name: str = "stdout") -> dict[str, Any]:
    output = {"output_type": "stream", "name": name, "text": text}
    cell = {"cell_type": "code", "source": "1", "metadata": {"x": 1}, "outputs": [output]}
    return {"cells": [cell], "metadata": {"language_info": {"version": "3.11.7"}}}


def test_the_guide_has_six_notebooks_in_order() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "0_constants",
        "1_data_ingest",
        "2_model_graph",
        "3_launch_training",
        "4_evaluation",
        "5_tensorboard",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEach:
    def test_is_a_valid_notebook(self, path: Path) -> None:
        nbformat.validate(nbformat.read(path, as_version=4))

    def test_was_executed_from_top_to_bottom(self, path: Path) -> None:
        cells = code_cells(read(path))
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))

    def test_has_outputs_that_are_small_and_name_no_machine(self, path: Path) -> None:
        assert not notebook_outputs.complaints(read(path))

    def test_is_as_the_runner_would_keep_it(self, path: Path) -> None:
        notebook = read(path)
        assert (
            notebook_outputs.kept(copy.deepcopy(notebook), {})["metadata"] == (notebook["metadata"])
        )

    def test_explains_before_it_computes(self, path: Path) -> None:
        first = read(path)["cells"][0]
        assert first["cell_type"] == "markdown"
        assert "".join(first["source"]).startswith(f"# {path.name[0]} · ")

    def test_links_lead_to_files(self, path: Path) -> None:
        from tools.docs_hooks import links_of

        texts = ["".join(c["source"]) for c in read(path)["cells"] if c["cell_type"] != "code"]
        links = [link for text in texts for link in links_of(text) if "://" not in link]
        missing = [link for link in links if not (FOLDER / link.partition("#")[0]).exists()]
        assert not missing

    def test_imports_helpers_that_are_there(self, path: Path) -> None:
        modules = {
            node.module
            for cell in code_cells(read(path))
            for node in ast.walk(ast.parse("".join(cell["source"])))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_")
        }
        assert not [name for name in modules if not (FOLDER / f"{name}.py").exists()]


def test_members_are_sent_every_helper_that_they_import() -> None:
    """`main_fun` is sent by value, what it imports from beside it is not."""
    constants = ast.parse((FOLDER / "mnist_constants.py").read_text())
    [shipped] = [
        ast.literal_eval(node.value)
        for node in constants.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MODULES"
    ]
    wanted = {
        f"{node.module}.py"
        for name in ("mnist_training.py", *shipped)
        for node in ast.walk(ast.parse((FOLDER / name).read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_")
    }
    assert wanted <= set(shipped)


@pytest.mark.parametrize(
    "text, kept",
    [
        ("in /srv/someone/clone/examples", "in CLONE/examples"),
        ("build-7:40123 answers", "HOST:PORT answers"),
        ("at 10.1.2.3:40123", "at HOST:PORT"),
        ("http://localhost:34567/", "http://localhost:PORT/"),
        ("files in /tmp/tflease-events-x1/a", "files in PATH"),
        ("<TFCluster at 0x7f15d4c81b50>", "<TFCluster at 0x...>"),
        ("token " + "0123456789abcdef" * 2, "token SECRET"),
        ("part-03.npz, 99.2% of 360 images", "part-03.npz, 99.2% of 360 images"),
        ("<td>a</td></tr>", "<td>a</td></tr>"),
    ],
)
def test_what_belongs_to_a_machine_is_replaced(text: str, kept: str) -> None:
    assert notebook_outputs.scrubbed(text, NAMES) == kept
    assert not notebook_outputs.complaints(notebook_outputs.kept(with_text(text), NAMES))


@pytest.mark.parametrize(
    "text, complaint",
    [
        (f"saved in {AT_HOME}", AT_HOME),
        ("http://localhost:34567/", "localhost:34567"),
        ("192.168.0.7", "192.168.0.7"),
        ("0123456789abcdef" * 4, "0123456789abcdef"),
        ("x" * 30_000, "30,000 bytes"),
    ],
)
def test_what_was_not_replaced_is_complained_of(text: str, complaint: str) -> None:
    [found] = notebook_outputs.complaints(with_text(text))
    assert complaint in found


def test_errors_and_large_images_are_complained_of() -> None:
    image = {"output_type": "display_data", "data": {"image/png": "A" * 100_000}, "metadata": {}}
    error = {"output_type": "error", "ename": "KeyError", "evalue": "", "traceback": []}
    notebook = with_text("")
    notebook["cells"][0]["outputs"] = [image, error]
    assert [each.partition(": ")[2] for each in notebook_outputs.complaints(notebook)] == [
        "an image of 75,000 bytes",
        "an error: KeyError",
    ]


def test_standard_error_is_not_kept_and_pieces_of_a_stream_are_joined() -> None:
    notebook = with_text("a")
    outputs = notebook["cells"][0]["outputs"]
    outputs += with_text("WARN Utils", "stderr")["cells"][0]["outputs"]
    outputs += with_text("b\n")["cells"][0]["outputs"]
    [cell] = notebook_outputs.kept(notebook, {})["cells"]
    assert [each["text"] for each in cell["outputs"]] == ["ab\n"]
    assert cell["metadata"] == {}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
