"""The doctor's lines about the machine, each on one that lacks what it looks for."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from coordinator.cli.checks import Check, Status, host


def said(check: Check) -> str:
    """What the line must not lack: when it has failed, what to do."""
    assert check.status is not Status.FAILED or check.advice
    return f"{check.found} -> {check.advice}"


def test_a_python_that_is_too_old() -> None:
    assert host.python((3, 10, 4)).status is Status.FAILED
    assert host.python((3, 13, 0)).status is Status.OK


def test_a_kernel_that_is_too_old_or_not_linux() -> None:
    assert host.kernel("Linux", "4.18.0-553.el8.x86_64").status is Status.FAILED
    assert host.kernel("Darwin", "23.1.0").status is Status.NOTE
    assert host.kernel("Linux", "5.3.0").status is not Status.FAILED


def test_a_kernel_that_refuses_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    refused = host.kernel()
    assert refused.status is Status.NOTE
    assert "seccomp" in said(refused)


def test_a_python_built_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert "built without pidfds" in said(host.kernel())
    assert host.kernel().status is Status.FAILED


def test_proc_is_missing_or_lists_no_children(tmp_path: Path) -> None:
    assert host.proc(tmp_path, "Linux").status is Status.FAILED
    (tmp_path / "self").mkdir()
    (tmp_path / "self/stat").touch()
    assert host.proc(tmp_path, "Linux").status is Status.NOTE
    assert host.proc().status is Status.OK


def test_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
    assert host.memory(meminfo, tmp_path).status is Status.OK
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1073741824\n")
    assert host.memory(meminfo, tmp_path).status is Status.OK
    (tmp_path / "memory.max").write_text("2147483648\n")
    tight = host.memory(meminfo, tmp_path)
    assert tight.status is Status.NOTE
    assert "1024 MiB left below the container's limit" in said(tight)


def test_memory_with_the_older_cgroups(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("0\n")
    assert host.memory(tmp_path / "none", tmp_path).found == "unknown"
    (tmp_path / "memory/memory.limit_in_bytes").write_text(str(1 << 30))
    assert "1024 MiB" in host.memory(tmp_path / "none", tmp_path).found


def test_a_limited_address_space() -> None:
    assert host.address_space(resource.RLIM_INFINITY).status is Status.OK
    limited = host.address_space(4 << 30)
    assert limited.status is Status.FAILED
    assert "ulimit -v unlimited" in said(limited)


def test_the_members_directory(tmp_path: Path) -> None:
    home = tmp_path / "home"
    set_to_home = {"TFLEASE_HOME": str(home)}
    assert host.member_directory(set_to_home).status is Status.OK
    assert not home.exists(), "the doctor changes nothing"
    home.mkdir(mode=0o755)
    home.chmod(0o755)  # whatever the umask
    open_to_all = host.member_directory(set_to_home)
    assert open_to_all.status is Status.FAILED
    assert "mode 0755" in said(open_to_all)
    home.chmod(0o700)
    assert host.member_directory(set_to_home).status is Status.OK
    (tmp_path / "link").symlink_to(home)
    assert host.member_directory({"TFLEASE_HOME": f"{tmp_path}/link"}).status is Status.FAILED
    (tmp_path / "file").touch()
    below_a_file = {"TFLEASE_HOME": f"{tmp_path}/file/home"}
    assert host.member_directory(below_a_file).status is Status.FAILED


def test_the_members_directory_of_its_own_accord(tmp_path: Path) -> None:
    expected = tmp_path / f"tflease-{os.geteuid()}"
    assert str(expected) in host.member_directory({}, str(tmp_path)).found


def test_a_proxy_is_harmless() -> None:
    assert host.proxy({}).status is Status.OK
    told = host.proxy({"http_proxy": "http://proxy.example:3128"})
    assert told.status is Status.NOTE
    assert "harmless" in said(told)


def test_a_host_name_that_is_loopback_or_unknown() -> None:
    assert "spark.driver.host" in said(host.host_name("localhost", {}))
    unknown = host.host_name("no-such-host.invalid", {})
    assert unknown.status is Status.FAILED
    assert "/etc/hosts" in said(unknown)
    told = host.host_name("no-such-host.invalid", {"SPARK_LOCAL_IP": "192.0.2.1"})
    assert told.status is Status.OK
