"""Look at what a SuperLink or a SuperNode is given: certificates, keys, a port. One clear line if it would not do."""

from __future__ import annotations

import ipaddress
import socket
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from certificates import Certificates
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from deployment_error import DeploymentError, reason_of


def check_port_free(host: str, port: int) -> None:
    """Raise DeploymentError if a port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after a restart
        try:
            probe.bind((host, port))
            probe.listen()
        except (OSError, OverflowError) as error:
            raise DeploymentError(
                f"port {port} of {host} cannot be had ({reason_of(error)}): end what listens there, or choose "
                "another --port"
            ) from error


def check_certificates(files: Certificates, host: str | None = None) -> None:
    """Raise DeploymentError if a SuperLink's certificate is not signed by its authority, expired, or of another key.

    Parameters
    ----------
    files : Certificates
        The files.
    host : str, optional
        A name or address that it must be valid for.
    """
    authorities, chain = read_certificates(files.authority), read_certificates(files.certificate)
    certificate = chain[0]
    key = _read(files.key, "the SuperLink's private key", "certificates.py makes it")
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(
            f"{files.key} is no private key in PEM format without a password: make it anew with certificates.py"
        ) from error
    if public != certificate.public_key():
        raise DeploymentError(f"{files.key} is not the key of {files.certificate}: use the two that were made together")
    path = _path(chain, authorities)
    if path is None:
        raise DeploymentError(
            f"{files.certificate} is not signed by {files.authority}: use those that were made together, put the "
            "certificates between the two below the first of it, or make the SuperLink's anew with certificates.py"
        )
    for one in path:
        if not one.not_valid_before_utc <= datetime.now(UTC) <= one.not_valid_after_utc:
            where = files.certificate if one in chain else files.authority
            raise DeploymentError(
                f"{where} is valid from {one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d} and "
                "not now: renew it with certificates.py, or set this machine's clock"
            )
    names = _names(certificate)
    if host is not None and host not in names:
        raise DeploymentError(
            f"{files.certificate} is valid for {', '.join(names)} and not for {host}: make it anew with --host {host}"
        )


def check_node_key(path: Path) -> None:
    """Raise DeploymentError if a file is no private key that Flower takes, or others may read it."""
    content = _read(path, "the node's private key", f'ssh-keygen -t ecdsa -b 384 -N "" -f {path} makes it')
    try:
        key = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(
            f"{path} is no private key in OpenSSH's format without a password: make one with ssh-keygen -t ecdsa -b 384"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeploymentError(
            f"{path} must be an elliptic key on a NIST curve: make one with ssh-keygen -t ecdsa -b 384"
        )
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DeploymentError(f"{path} is open to other users: chmod 600 {path}")


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a file, the first of which is the one that is meant.

    Raises
    ------
    DeploymentError
        If there is none.
    """
    content = _read(path, "a certificate", "certificates.py makes it")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise DeploymentError(f"{path} is no certificate in PEM format: make it anew with certificates.py") from error


def _path(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> list[x509.Certificate] | None:
    """Return the certificates from the first of a chain up to one of the authorities, None if there is no such way."""
    path, others = [chain[0]], list(chain[1:])
    while True:
        for authority in authorities:
            if _signs(authority, path[-1]):
                return [*path, authority]
        above = next((one for one in others if _signs(one, path[-1])), None)
        if above is None:
            return None
        others.remove(above)
        path.append(above)


def _signs(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _read(path: Path, what: str, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeploymentError(f"{path} must be {what}, but cannot be read ({reason_of(error)}): {remedy}") from error
