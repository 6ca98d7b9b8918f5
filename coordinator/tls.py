"""TLS from files: PEM in, checked before anything is started with it.

What is wrong with a file is said with its name, and with what to do: gRPC would only say that a
handshake has failed, and that on the other side.
"""

from __future__ import annotations

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.core.access import ClientTls, ServerTls
from coordinator.core.errors import Unauthenticated
from coordinator.paths import expanded

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FilePath = str | os.PathLike[str]

_MAX_BYTES = 4 * 1024 * 1024  # bundles of all the world's authorities have 200 to 400 KiB
_OTHERS = 0o077
_OTHERS_THAN_GROUP = 0o037


def server_tls(
    cert_file: FilePath,
    key_file: FilePath,
    client_ca_file: FilePath | None = None,
    *,
    now: float | None = None,
) -> ServerTls:
    """A server's certificate (with its chain), its key, and the authority of its clients; None:
    clients need no certificate. ``now``: Unix time; None: it is asked for.

    Raises Unauthenticated, naming the file and what to do.
    """
    moment = time.time() if now is None else now
    certificate, key = _pair(Path(cert_file), Path(key_file), moment)
    authority = "" if client_ca_file is None else _authority(Path(client_ca_file), moment)
    return ServerTls(certificate, key, authority)


def client_tls(
    ca_file: FilePath | None = None,
    cert_file: FilePath | None = None,
    key_file: FilePath | None = None,
    *,
    now: float | None = None,
) -> ClientTls:
    """The authority that a server's certificate must come from (None: any that the system trusts)
    and, for servers that want to see one, the client's own certificate and key.

    Raises Unauthenticated, naming the file and what to do.
    """
    moment = time.time() if now is None else now
    authority = "" if ca_file is None else _authority(Path(ca_file), moment)
    if cert_file is not None and key_file is not None:
        return ClientTls(authority, *_pair(Path(cert_file), Path(key_file), moment))
    if cert_file is not None:
        raise _refusal("certificate", Path(cert_file), "needs its key: name that file, too")
    if key_file is not None:
        raise _refusal("key", Path(key_file), "needs its certificate: name that file, too")
    return ClientTls(authority)


def name_in(certificate: str) -> str:
    """A name that it is good for, to be asked for where another address is called; "" when it has
    none. ``certificate``: PEM, known to be good."""
    from cryptography import x509

    own = x509.load_pem_x509_certificates(certificate.encode())[0]
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    hosts = names.get_values_for_type(x509.DNSName)
    if hosts:
        return hosts[0].replace("*", "tflease", 1)  # any will do in a wildcard's place
    return next(map(str, names.get_values_for_type(x509.IPAddress)), "")


def _authority(file: Path, now: float) -> str:
    text = _read("CA", file)
    certificates = _certificates("CA", file, text)
    if not any(_problem(each, now) == "" for each in certificates):  # bundles have old ones, too
        raise _refusal("CA", file, _problem(certificates[0], now))
    return text


def _pair(cert_file: Path, key_file: Path, now: float) -> tuple[str, str]:
    """A certificate and its key, which belong together and are good now."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _read("certificate", cert_file)
    own = _certificates("certificate", cert_file, text)[0]
    problem = _problem(own, now)
    if problem:
        raise _refusal("certificate", cert_file, problem)
    key_text = _read("key", key_file, is_secret=True)
    try:
        key = load_pem_private_key(key_text.encode(), password=None)
    except TypeError:
        raise _refusal(
            "key",
            key_file,
            "has a passphrase, and nobody is there to type it: write it without one "
            "(openssl pkey -in KEY -out KEY_WITHOUT) into a file that only you can read",
        ) from None
    except ValueError:
        raise _refusal("key", key_file, "holds no private key in PEM") from None
    if key.public_key() != own.public_key():
        raise _refusal("key", key_file, f"does not belong to the certificate in {cert_file}")
    return text, key_text


def _certificates(what: str, file: Path, text: str) -> list[Certificate]:
    """One at least."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(text.encode())
    except ValueError:
        raise _refusal(
            what, file, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        ) from None


def _problem(certificate: Certificate, now: float) -> str:
    """Why it is not good now; "" when it is."""
    moment = datetime.fromtimestamp(now, UTC)
    if moment > certificate.not_valid_after_utc:
        return f"has expired at {_time(certificate.not_valid_after_utc)}: make a new one"
    if moment < certificate.not_valid_before_utc:
        return (
            f"is not valid before {_time(certificate.not_valid_before_utc)}, and the clock of this "
            f"machine says {_time(moment)}"
        )
    return ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _read(what: str, file: Path, *, is_secret: bool = False) -> str:
    path = expanded(file)
    try:
        # Whoever put a FIFO there must not make us wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refusal(what, path, "does not exist") from None
    except OSError as error:
        raise _refusal(what, path, f"cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refusal(what, path, "is no regular file")
        if is_secret:
            _check_secret(path, found)
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(what, path, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise _refusal(what, path, f"is longer than {_MAX_BYTES} bytes, which none is")
    try:
        return content.decode("ascii" if is_secret else "utf-8")  # bundles have comments
    except UnicodeDecodeError:
        raise _refusal(what, path, "is no text: it must be PEM, not DER") from None


def _check_secret(path: Path, found: os.stat_result) -> None:
    """Nobody else may read it. One that root has given to a group of ours (a system service, a
    secret that is mounted into a container) is as good as our own."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (os.geteuid(), 0):
        raise _refusal("key", path, f"belongs to another user (uid {found.st_uid})")
    others = _OTHERS if found.st_uid == os.geteuid() else _OTHERS_THAN_GROUP
    if mode & others:
        raise _refusal(
            "key",
            path,
            f"can be read or written by others (mode {mode:04o}): chmod 600 {path}, and when "
            "somebody may have read it, make a new one",
        )


def _refusal(what: str, file: Path, problem: str) -> Unauthenticated:
    return Unauthenticated(f"the {what} file {file} {problem}", {"path": str(file)})
