"""What gRPC's words about a connection that failed mean, where TLS is the reason. PURE."""

from __future__ import annotations

from coordinator.core.access import ClientTls

_OF_TLS = {
    "WRONG_VERSION_NUMBER": "it speaks plaintext: call it grpc://, or give it a certificate",
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate does not come from an authority that is trusted here (ca_file), or is not "
        "valid by the clock of this machine"
    ),
    "Hostname Verification": "its certificate is for another name: call it by one that is in there",
}


def advice(trouble: str, tls: ClientTls | None) -> str:
    """A sentence on what to do about ``trouble``, a failed call; "" when TLS is not known to be
    the reason. ``tls``: what the caller spoke."""
    if tls is not None:
        for sign, meaning in _OF_TLS.items():
            if sign in trouble:
                return meaning
    if "Socket closed" not in trouble:  # whoever listens there has hung up on the first words
        return ""
    if tls is None:
        return "if it speaks TLS, call it grpcs://"
    if not tls.certificate:
        return "if it wants to see a certificate, name one (cert_file and key_file)"
    return "it may not trust the authority that our certificate comes from"
