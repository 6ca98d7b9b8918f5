"""What mkdocs cannot do by itself: pages from files that are not below docs/.

README.md, ARCHITECTURE.md and their like are read on their own, too, so they stay where they are
and their links stay as they are; so do the notebooks. This hook makes pages of them and turns each
link between files of the repository into one between pages. A linked file that is no page (an
example, a .proto) gets a page that shows it.

mkdocs itself is imported only where it is needed: the tests use the rest without it.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

DOCUMENTS = {
    "README.md": "readme.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/mnist/README.md": "tutorial/running.md",
}
"""Pages by the file they are made from."""

NOTEBOOKS = "examples/mnist"
"""The folder of the notebooks; their pages are in tutorial/."""

LIST = re.compile(r"([-*+]|\d+[.]) ")
LINK = re.compile(r"(?<!!)(\[[^\[\]]*\]\()([^()\s]+)(\))")
FENCE = re.compile(r" *(`{3,}|~{3,})")
OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:|#|//", re.IGNORECASE)

LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yml": "yaml", ".proto": "protobuf"}

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


# -- which page a file is ------------------------------------------------------------------------


def page_of(path: str) -> str | None:
    """The page of a file of the repository, both with "/"; None: there is no such file."""
    if not (ROOT / path).exists():
        return None
    if path in DOCUMENTS:
        return DOCUMENTS[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    name = posixpath.basename(path)
    if path == f"{NOTEBOOKS}/{name}" and name.endswith(".ipynb"):
        return f"tutorial/{name.removesuffix('.ipynb')}.md"
    return f"source/{path}.md"


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code."""
    fence = ""
    for line in text.splitlines():
        marks = FENCE.match(line)
        if fence:
            yield line, True
            fence = "" if line.strip() == fence else fence
        elif marks:
            yield line, True
            fence = marks[1]
        else:
            yield line, line.startswith(("    ", "\t"))


def links_of(text: str) -> Iterator[str]:
    """The links of a page, those in code left out."""
    for line, is_code in lines_of(text):
        if not is_code:
            yield from (found[2] for found in LINK.finditer(line))


def target_of(path: str, link: str) -> str | None:
    """The file of the repository that a link in another one means; None: it leads elsewhere."""
    if OUTSIDE.match(link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link.partition("#")[0]))


def as_page(path: str, page: str, text: str) -> str:
    """The text of a file as that of its page: links lead to pages, and lists may follow a line of
    text at once, as they may wherever else the files are read."""

    def change(link: str) -> str:
        target = target_of(path, link)
        other = page_of(target) if target is not None else None
        if other is None:
            return link  # leads elsewhere, or nowhere: mkdocs warns of that
        _, mark, anchor = link.partition("#")
        return posixpath.relpath(other, posixpath.dirname(page) or ".") + mark + anchor

    lines, before = [], ""
    for line, is_code in lines_of(text):
        if is_code:
            lines.append(line)
        else:
            if LIST.match(line) and before and not LIST.match(before) and before[0] != " ":
                lines.append("")
            lines.append(LINK.sub(lambda found: found[1] + change(found[2]) + found[3], line))
        before = line
    return "\n".join(lines) + "\n"


# -- notebooks and other files as pages ----------------------------------------------------------


def notebook_as_markdown(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """The text of a notebook with the outputs that it was saved with, and its images by name."""
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(fenced(source, "python"))
            for output in cell["outputs"]:
                parts.append(_output(output, name, images))
    return "\n\n".join(part for part in parts if part) + "\n", images


def _output(output: dict[str, Any], name: str, images: dict[str, bytes]) -> str:
    kind = output["output_type"]
    if kind == "stream":
        return fenced("".join(output["text"]), "text")
    if kind == "error":
        return fenced("\n".join(output["traceback"]), "text")
    data = output["data"]
    if "image/png" in data:
        image = f"{name}_{len(images)}.png"
        images[image] = base64.b64decode("".join(data["image/png"]))
        return f"![output]({image}){{ .notebook-output }}"
    if "text/html" in data:
        # A blank line would end the HTML and begin a paragraph.
        html = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]).strip())
        return f'<div class="notebook-output">\n{html}\n</div>'
    if "text/markdown" in data:
        return "".join(data["text/markdown"]).strip()
    return fenced("".join(data.get("text/plain", "")), "text")


def fenced(text: str, language: str) -> str:
    """A block of code; empty where there is none."""
    text = ANSI.sub("", text).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}" if text else ""


def source_page(path: str) -> str:
    """A page that shows a file, or the names in a folder."""
    place = ROOT / path
    if place.is_dir():
        names = sorted(
            each.name for each in place.iterdir() if not each.name.startswith((".", "_"))
        )
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    language = LANGUAGES.get(place.suffix, "text")
    return f"# {path}\n\n{fenced(place.read_text(), language)}\n"


# -- mkdocs' side --------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made; links are followed once, from pages to files."""
    from mkdocs.structure.files import File

    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for path, page in DOCUMENTS.items():
        texts[path] = (ROOT / path).read_text()
        made = as_page(path, page, texts[path])
        files.append(File.generated(config, page, content=made))
    for place in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        path = place.relative_to(ROOT).as_posix()
        page = page_of(path) or ""
        texts[path], images = notebook_as_markdown(json.loads(place.read_text()), place.stem)
        files.append(File.generated(config, page, content=as_page(path, page, texts[path])))
        for name, image in images.items():
            files.append(File.generated(config, f"tutorial/{name}", content=image))
    for page in sorted(_linked_sources(texts)):
        path = page.removeprefix("source/").removesuffix(".md")
        files.append(File.generated(config, page, content=source_page(path)))
    return files


def _linked_sources(texts: dict[str, str]) -> set[str]:
    targets = {target_of(path, link) for path, text in texts.items() for link in links_of(text)}
    pages = {page_of(target) for target in targets if target}
    return {page for page in pages if page and page.startswith("source/")}


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Docstrings: double colons before a block of code, and pages named by their file."""
    if not page.file.src_uri.startswith("reference/"):
        return html

    def link(found: re.Match[str]) -> str:
        file = files.get_file_from_path(found[1])
        return f'<a href="{file.url_relative_to(page.file)}">{found[0]}</a>' if file else found[0]

    return re.sub(r"\bdocs/([\w-]+[.]md)", link, re.sub(r"::(?=</p>)", ":", html))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of pages below docs/; those that were made have theirs already."""
    if page.file.generated_by is not None:
        return markdown
    path = "docs/" + page.file.src_uri.replace(os.sep, "/")
    return as_page(path, page.file.src_uri, markdown)
