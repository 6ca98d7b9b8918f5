"""Certificates for tests: good ones, and of every kind that is of no use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


class TestAuthority:
    """Signs for hosts of this machine. ``pem``: its certificate."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign("authority", self._key, timedelta(days=1), timedelta(days=1), "")

    def issue(
        self,
        host: str = "localhost",
        *,
        age: timedelta = timedelta(days=1),
        left: timedelta = timedelta(days=1),
        passphrase: str = "",
        address: str = "",
    ) -> tuple[str, str]:
        """A certificate and its key. ``age``: since when it is good. ``left``: for how long.
        ``address``: instead of the host's name."""
        key = ec.generate_private_key(ec.SECP256R1())
        how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        return self._sign(host, key, age, left, host, address), text.decode()

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        age: timedelta,
        left: timedelta,
        host: str,
        address: str = "",
    ) -> str:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - age)
            .not_valid_after(now + left)
            .add_extension(x509.BasicConstraints(ca=not host, path_length=None), critical=True)
        )
        if host:
            name = x509.IPAddress(ip_address(address)) if address else x509.DNSName(host)
            names = x509.SubjectAlternativeName([name])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file with this mode from the start."""
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)
    return path


@dataclass(frozen=True)
class DaemonFiles:
    """For `tflease serve` on localhost its certificate, its key and the authority of its clients;
    and what ``TFCluster.run`` takes, by argument."""

    server: tuple[Path, Path, Path]
    client: dict[str, Path]


def daemon_files(folder: Path) -> DaemonFiles:
    """Of an authority of their own."""
    authority = TestAuthority()
    ca = write(folder / "ca.pem", authority.pem)
    pairs = []
    for side in ("server", "client"):
        certificate, key = authority.issue("localhost")
        pairs.append(
            (write(folder / f"{side}.pem", certificate), write(folder / f"{side}.key", key))
        )
    server, client = pairs
    return DaemonFiles(
        (*server, ca), {"ca_file": ca, "cert_file": client[0], "key_file": client[1]}
    )
