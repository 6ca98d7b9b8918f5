"""The documentation as a site: every page is in its navigation, and every link leads somewhere.

`make docs` builds it, strictly, with tools of its own; this needs none of them.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import coordinator

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"#{1,6} +(.*?)(?: +#+)?$")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "tools" / "docs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def navigation() -> list[str]:
    """The pages that mkdocs.yml names, in their order."""
    _, _, nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    return re.findall(r"^ *- (?:[^:\n]*: )?(\S+[.]md)$", nav, re.MULTILINE)


def notebooks(hooks: ModuleType) -> list[Path]:
    return sorted((ROOT / hooks.NOTEBOOKS).glob("*.ipynb"))


def texts(hooks: ModuleType) -> Iterator[tuple[str, str]]:
    """What the site is made from, by path: documents, pages, and the text of notebooks."""
    for place in [*(ROOT / name for name in hooks.DOCUMENTS), *(ROOT / "docs").rglob("*.md")]:
        yield place.relative_to(ROOT).as_posix(), place.read_text()
    for place in notebooks(hooks):
        text, _ = hooks.notebook_as_markdown(json.loads(place.read_text()), place.stem)
        yield place.relative_to(ROOT).as_posix(), text


def anchors(hooks: ModuleType, text: str) -> set[str]:
    """Of headings, as the site and code hosts alike make them from words."""
    headings = (
        HEADING.match(line) for line, is_code in hooks.lines_of(text) if line and not is_code
    )
    words = (re.sub(r"[^\w\s-]", "", found[1].lower()).strip() for found in headings if found)
    return {re.sub(r"\s", "-", each) for each in words}


def test_every_page_is_in_the_navigation_once(hooks: ModuleType) -> None:
    pages = {place.relative_to(ROOT / "docs").as_posix() for place in ROOT.glob("docs/**/*.md")}
    pages |= set(hooks.DOCUMENTS.values())
    pages |= {f"tutorial/{place.stem}.md" for place in notebooks(hooks)}
    assert len(pages) > 20
    named = navigation()
    assert sorted(named) == sorted(set(named))
    assert set(named) - pages == set(), "mkdocs.yml names pages that do not exist"
    assert pages - set(named) == set(), "pages that mkdocs.yml does not name"


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    lazy = {name: ".".join(place) for name, place in coordinator._LAZY.items()}
    others = (getattr(coordinator, name) for name in set(coordinator.__all__) - set(lazy))
    public = set(lazy.values()) | {f"{each.__module__}.{each.__qualname__}" for each in others}
    assert public - shown == set()


def test_every_link_between_documents_leads_to_a_file_and_a_heading(hooks: ModuleType) -> None:
    known = dict(texts(hooks))
    wrong, right = [], 0
    for path, text in known.items():
        for link in hooks.links_of(text):
            target = path if link.startswith("#") else hooks.target_of(path, link)
            if target is None:
                continue
            anchor = link.partition("#")[2]
            is_there = (ROOT / target).exists()
            if anchor and target in known:
                is_there = anchor in anchors(hooks, known[target])
            right += is_there
            if not is_there:
                wrong.append(f"{path}: {link}")
    assert not wrong
    assert right > 50


def test_links_between_files_become_links_between_pages(hooks: ModuleType) -> None:
    text = (
        "[a](docs/cli.md#json) [b](CHANGELOG.md) [c](examples/generic_peer.py) [d](#here)\n"
        "[e](mailto:somebody) [f](docs/no-such-page.md) `code`\n"
        "    [a](docs/cli.md)\n```\n[a](docs/cli.md)\n```\n"
    )
    assert hooks.as_page("README.md", "guide/readme.md", text) == (
        "[a](../cli.md#json) [b](../changelog.md) [c](../source/examples/generic_peer.py.md)"
        " [d](#here)\n"
        "[e](mailto:somebody) [f](docs/no-such-page.md) `code`\n"
        "    [a](docs/cli.md)\n```\n[a](docs/cli.md)\n```\n"
    )


def test_a_list_may_follow_a_line_of_text(hooks: ModuleType) -> None:
    text = "text\n- one\n- two\n  more\n- three\n\n```\ntext\n- code\n```\n"
    page = hooks.as_page("docs/cli.md", "cli.md", text)
    assert page == "text\n\n- one\n- two\n  more\n- three\n\n```\ntext\n- code\n```\n"


def test_a_notebook_becomes_a_page_with_the_outputs_that_it_was_saved_with(
    hooks: ModuleType,
) -> None:
    image = base64.b64encode(b"an image").decode()
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "", "outputs": []},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "plot()"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["\x1b[31m1\x1b[0m\n", "```"]},
                {"output_type": "display_data", "data": {"image/png": image, "text/plain": "x"}},
                {"output_type": "execute_result", "data": {"text/html": "<p>a</p>\n\n<p>b</p>"}},
                {
                    "output_type": "display_data",
                    "data": {"text/markdown": "```python\nf()\n```\n", "text/plain": "f()"},
                },
                {"output_type": "execute_result", "data": {"text/plain": ["4", "2"]}},
                {"output_type": "error", "traceback": ["Traceback", "ValueError: x"]},
            ],
        },
    ]
    text, images = hooks.notebook_as_markdown({"cells": cells}, "name")
    assert images == {"name_0.png": b"an image"}
    assert text.split("\n\n") == [
        "# Title\ntext",
        "```python\nprint(1)\nplot()\n```",
        "````text\n1\n```\n````",
        "![output](name_0.png){ .notebook-output }",
        '<div class="notebook-output">\n<p>a</p>\n<p>b</p>\n</div>',
        "```python\nf()\n```",
        "```text\n42\n```",
        "```text\nTraceback\nValueError: x\n```\n",
    ]
