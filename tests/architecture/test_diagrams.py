"""The state diagrams in ARCHITECTURE.md are those of the tables (tools/diagrams.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = "# Title\n<!-- generated: {} -->\n{}<!-- end generated -->\nThe end.\n"


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "tools" / "diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagrams_in_the_architecture_document_are_fresh(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (ROOT / "ARCHITECTURE.md").exists():
        pytest.skip("ARCHITECTURE.md is not there yet")
    assert tool.main(["--check"]) == 0, capsys.readouterr().err


def test_stale_diagrams_are_found_and_written_anew(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "ARCHITECTURE.md"
    monkeypatch.setattr(tool, "DOCUMENT", document)
    assert tool.main(["--check"]) == 1
    document.write_text(DOCUMENT.format("run-states", "old\n"))
    assert tool.main([]) == 1, "no place for the other diagram"
    assert "old" in document.read_text()
    document.write_text(
        DOCUMENT.format("run-states", "old\n") + DOCUMENT.format("member-states", "")
    )
    assert tool.main(["--check"]) == 1
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    text = document.read_text()
    assert text.count("stateDiagram-v2") == 2
    assert "old" not in text
    assert text.endswith("<!-- end generated -->\nThe end.\n")
