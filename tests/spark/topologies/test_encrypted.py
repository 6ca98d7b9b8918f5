"""Applications whose own traffic is authenticated and encrypted by Spark: a run is none the wiser,
and a member gets none of Spark's secrets."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import Roles
from tests.spark.application import Application, application
from tests.spark.topologies.scenario import train

SECRET, PASSWORD = secrets.token_hex(16), secrets.token_hex(16)

AUTHENTICATED = {
    "spark.authenticate": "true",
    "spark.authenticate.secret": SECRET,
    "spark.network.crypto.enabled": "true",
}


def over_tls(folder: Path) -> dict[str, str]:
    """Also between driver and executors, with a keystore that is made for it."""
    store = folder / "spark.p12"
    subprocess.run(
        ["keytool", "-genkeypair", "-alias", "spark", "-keyalg", "EC", "-groupname", "secp256r1",
         "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1", "-validity", "2",
         "-storetype", "PKCS12", "-keystore", str(store),
         "-storepass:env", "STORE_PASSWORD", "-keypass:env", "STORE_PASSWORD"],
        env={**os.environ, "STORE_PASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )  # fmt: skip
    settings = {
        "enabled": "true",
        "protocol": "TLSv1.3",
        "keyStore": str(store),
        "keyStorePassword": PASSWORD,
        "keyPassword": PASSWORD,
        "trustStore": str(store),
        "trustStorePassword": PASSWORD,
    }
    everywhere = {f"spark.ssl.{name}": value for name, value in settings.items()}
    # What Spark sends between driver and executors is not meant by the former.
    return {**everywhere, **{f"spark.ssl.rpc.{name}": value for name, value in settings.items()}}


@pytest.fixture(params=["spark.authenticate", "spark.ssl"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Application]:
    conf = AUTHENTICATED if request.param == "spark.authenticate" else over_tls(tmp_path)
    with application("local-cluster[2,1,1024]", conf, executors=2) as driver:
        yield driver


def look_around(args: Any, ctx: Any) -> dict[str, Any]:
    """What a member finds in its environment, and in those of the processes above it."""
    return {"member": f"{ctx.job_name}:{ctx.task_index} {args}", "environ": dict(os.environ)}


def conf_of(spark: Any, name: str) -> str:
    return str(spark.sparkContext.getConf().get(name, ""))


def test_a_run_succeeds_and_its_members_get_no_secret_of_spark_s(driver: Application) -> None:
    """R5: the task closure, with the run's token and key, travels under Spark's protection."""
    settings = {
        name: driver.call(conf_of, name)
        for name in ("spark.network.crypto.enabled", "spark.ssl.rpc.enabled")
    }
    assert "true" in settings.values()
    outcome = driver.call(train, look_around, "hello", Roles(worker=2))
    members = outcome["returned"]
    assert {each["member"] for each in members.values()} == {"worker:0 hello", "worker:1 hello"}
    for each in members.values():
        values = "\n".join(f"{name}={value}" for name, value in each["environ"].items())
        assert SECRET not in values
        assert PASSWORD not in values
    assert outcome["left"] == []
