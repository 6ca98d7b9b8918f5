"""Words for what is to be said of hosts: those of which it is the same share one text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coordinator.check import Check, failed, ok
from executor_agent.examination import Facts

_MAX_HOSTS = 5  # named in one line


def judged(
    name: str,
    about: Sequence[Facts],
    problem: Callable[[Facts], str],
    good: Callable[[Facts], str],
    advice: str,
    otherwise: Callable[[str, str, str], Check] = failed,
) -> Check:
    """One line: what is wrong where, or what all have."""
    problems = {each.hostname: text for each in about if (text := problem(each))}
    if problems:
        return otherwise(name, grouped(problems), advice)
    return ok(name, shared({each.hostname: good(each) for each in about}))


def shared(texts: Mapping[str, str]) -> str:
    """ "3.11.9", where all hosts say the same; else as `grouped`."""
    if len(set(texts.values())) != 1:
        return grouped(texts)
    [text] = set(texts.values())
    return f"{text} (all of {len(texts)} hosts)" if len(texts) > 1 else text


def grouped(texts: Mapping[str, str]) -> str:
    """ "3.11.9 (host-a, host-b); 3.12.1 (host-c)"."""
    hosts: dict[str, list[str]] = {}
    for host, text in texts.items():
        hosts.setdefault(text, []).append(host)
    return "; ".join(f"{text} ({_named(names)})" for text, names in hosts.items())


def _named(hosts: list[str]) -> str:
    more = len(hosts) - _MAX_HOSTS
    return ", ".join(hosts[:_MAX_HOSTS]) + (f" and {more} more" if more > 0 else "")


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
