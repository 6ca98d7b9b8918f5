"""The authority of one embedded coordinator: made for it, and gone when it has signed twice.

Its key is never written anywhere and never leaves this function, so that nobody, the coordinator
included, can make a third certificate that this run would take.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coordinator.core.access import ClientTls, ServerTls

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, Name, ObjectIdentifier

SERVER_NAME = "coordinator.tflease.internal"
"""What every embedded coordinator calls itself in its certificate. Clients ask for this name
whatever address they call, for an executor may reach the driver at one that nobody knows here."""

_BACKDATED = timedelta(days=7)  # the clock of an executor may be behind the driver's
_VALID = timedelta(days=3650)  # longer than any run: nothing renews it
_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_CLIENT_NAME = "client.tflease.internal"
_AUTHORITY_NAME = "authority.tflease.internal"


def new_authority(now: float | None = None) -> tuple[ServerTls, ClientTls]:
    """What the coordinator needs and what all of its clients share: mutual TLS among them and
    nobody else. ``now``: Unix time; None: it is asked for."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _signed(authority, SERVER_NAME, server_key, ExtendedKeyUsageOID.SERVER_AUTH, moment)
    client_key = ec.generate_private_key(ec.SECP256R1())
    client = _signed(authority, _CLIENT_NAME, client_key, ExtendedKeyUsageOID.CLIENT_AUTH, moment)
    ca = _pem(_authority(authority, moment))
    return (
        ServerTls(_pem(server), _key_pem(server_key), ca),
        ClientTls(ca, _pem(client), _key_pem(client_key), SERVER_NAME),
    )


def self_signed(name: str, now: float | None = None) -> tuple[str, str]:
    """A certificate that its owner shows and its peers know, and the key to it, both PEM. ``now``:
    Unix time; None: it is asked for."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, name, key, moment)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _authority(key: EllipticCurvePrivateKey, moment: datetime) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    builder = _builder(_AUTHORITY_NAME, _AUTHORITY_NAME, key, moment)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    uses = dict.fromkeys(_KEY_USES, False) | {"key_cert_sign": True}
    builder = builder.add_extension(x509.KeyUsage(**uses), critical=True)
    return builder.sign(key, SHA256())


def _signed(
    authority: EllipticCurvePrivateKey,
    name: str,
    key: EllipticCurvePrivateKey,
    usage: ObjectIdentifier,
    moment: datetime,
) -> Certificate:
    """``usage``: the one side of a connection that it is good for: a member that has the client's
    certificate cannot pose as the coordinator."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    builder = _builder(name, _AUTHORITY_NAME, key, moment)
    for extension, is_critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([usage]), True),
        (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
    ):
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(authority, SHA256())


def _builder(
    name: str, issuer: str, key: EllipticCurvePrivateKey, moment: datetime
) -> CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _BACKDATED)
        .not_valid_after(moment + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _name(text: str) -> Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
