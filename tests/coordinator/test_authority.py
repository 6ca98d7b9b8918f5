"""The authority of an embedded coordinator; connections made with it are in integration/grpc."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from coordinator.authority import SERVER_NAME, new_authority

NOW = 1_700_000_000.0


def loaded(pem: str) -> x509.Certificate:
    [certificate] = x509.load_pem_x509_certificates(pem.encode())
    return certificate


def test_both_sides_trust_the_same_authority_and_each_has_its_own_key() -> None:
    server, client = new_authority(NOW)
    assert server.client_ca == client.ca
    assert client.server_name == SERVER_NAME
    assert server.key != client.key
    authority = loaded(client.ca)
    for pem in (client.ca, server.certificate, client.certificate):
        certificate = loaded(pem)
        certificate.verify_directly_issued_by(authority)
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_clocks_may_differ_by_days_and_runs_may_take_years() -> None:
    """A certificate that is too fresh for a host would keep it out of the run."""
    server, client = new_authority(NOW)
    now = datetime.fromtimestamp(NOW, UTC)
    for pem in (client.ca, server.certificate, client.certificate):
        certificate = loaded(pem)
        assert certificate.not_valid_before_utc <= now - timedelta(days=7)
        assert certificate.not_valid_after_utc >= now + timedelta(days=3650)
    fresh = loaded(new_authority()[1].ca)
    assert (
        fresh.not_valid_before_utc.timestamp() < time.time() < fresh.not_valid_after_utc.timestamp()
    )


def test_each_certificate_is_good_for_one_side_and_signs_nothing() -> None:
    server, client = new_authority(NOW)
    for pem, usage in (
        (server.certificate, ExtendedKeyUsageOID.SERVER_AUTH),
        (client.certificate, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        extensions = loaded(pem).extensions
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_every_authority_is_another() -> None:
    assert new_authority(NOW)[1].ca != new_authority(NOW)[1].ca


def test_keys_are_not_shown() -> None:
    assert "PRIVATE KEY" not in repr(new_authority(NOW))
