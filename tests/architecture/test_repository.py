"""The repository as a whole: targets with help, files of a readable size, no local paths."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TARGETS = {
    "bench", "chaos", "check", "clean", "demo", "docs", "fmt", "fuzz", "gpu-check", "help",
    "histories", "kill-writes", "lint", "proto", "proto-check", "setup", "test", "test-fast",
    "types",
}  # fmt: skip

MAX_LINES = 400
OURS = {".md", ".proto", ".py", ".sh", ".toml", ".yaml", ".yml", ""}  # "": Makefile, .ci/run
NOT_WRITTEN_BY_US = ("docs/benchmarks.md", "LICENSE", "coordinator/v1/")

# Where packages come from is each machine's own setting.
REGISTRY_HOSTS = (
    r"pypi[.]org", r"pythonhosted[.]org", r"repo1?[.]maven", r"npmjs[.]org", r"deb[.]debian[.]org",
    r"anaconda[.]org", r"proxy[.]golang[.]org", r"--(extra-)?index-url", r"--find-links",
)  # fmt: skip


# Somebody's home folder, wherever it was written.
HOME = re.compile(r"(?<![\w./])/(root|home/\w+|Users/\w+)/")


def files() -> list[Path]:
    """Tracked files, and those that would be with the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: cannot tell our files from others")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def texts() -> dict[str, str]:
    found = {}
    for path in files():
        if path.suffix in OURS or path.suffix == ".txt":
            found[str(path.relative_to(ROOT))] = path.read_text()
    return found


def help_lines() -> dict[str, str]:
    command = ["make", "--no-print-directory", "-C", str(ROOT), "help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        words[0]: words[1] for line in shown.splitlines() if len(words := line.split(None, 1)) > 1
    }


def test_make_help_lists_the_targets_that_people_rely_on() -> None:
    assert set(help_lines()) >= TARGETS


def test_every_target_of_the_makefile_has_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(help_lines()) == set(phony.split())


def test_no_file_says_where_packages_come_from() -> None:
    named = {
        name: found[0]
        for name, text in texts().items()
        if (found := re.search("|".join(REGISTRY_HOSTS), text))
        and name != "tests/architecture/test_repository.py"
    }
    assert not named


def test_no_file_names_a_place_on_this_machine() -> None:
    places = [f"{place}/" for place in (ROOT, Path.home()) if len(place.parts) > 2]
    named = [(name, place) for name, text in texts().items() for place in places if place in text]
    named += [(name, found[0]) for name, text in texts().items() if (found := HOME.search(text))]
    assert not named


def test_no_file_of_ours_is_too_long_to_read_in_one_sitting() -> None:
    long = {
        name: lines
        for name, text in texts().items()
        if Path(name).suffix in OURS
        and not name.startswith(NOT_WRITTEN_BY_US)
        and (lines := len(text.splitlines())) > MAX_LINES
    }
    assert not long
