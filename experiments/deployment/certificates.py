r"""Certificates for a SuperLink: an authority of one's own, and a certificate for the names that devices call it by.

    .venv/bin/python experiments/deployment/certificates.py fleet/certificates \
        --host superlink.example.org --host 192.168.1.10

`ca.crt` goes to every device and to whoever runs `flwr`; `superlink.crt` and `superlink.key` stay with the SuperLink,
and `ca.key` best on another machine. The same command again renews the SuperLink's certificate; devices need not know.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from deployment_error import DeploymentError, exit_code

#: Days that certificates are valid; what is signed must not outlive who has signed.
SUPERLINK_DAYS, AUTHORITY_DAYS = 365, 3650
#: A SuperLink's own helper calls it by this address, with TLS, and would fail in silence; so does who works beside it.
OWN_NAMES = ("localhost", "127.0.0.1")
#: Clocks of devices without a battery may be behind.
_CLOCKS_APART = timedelta(hours=1)


@dataclass(frozen=True)
class Certificates:
    """Files of a SuperLink's certificates, as its options name them.

    Attributes
    ----------
    authority : Path
        Certificate of the authority, for ``--ssl-ca-certfile`` and the devices' ``--root-certificates``.
    certificate, key : Path
        For ``--ssl-certfile`` and ``--ssl-keyfile``.
    """

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Certificates:
        """Return the files under the names that :func:`make_certificates` gives them."""
        return cls(folder / "ca.crt", folder / "superlink.crt", folder / "superlink.key")


def make_certificates(folder: Path, hosts: list[str], *, days: int = SUPERLINK_DAYS) -> Certificates:
    """Write an authority, unless there is one, and a certificate for a SuperLink.

    Parameters
    ----------
    folder : Path
        Where the files go; made if need be. Private keys are readable for their owner only.
    hosts : list of str
        Names and IP addresses that devices call the SuperLink by. Those of the machine itself come on top.
    days : int
        Days for which the SuperLink's certificate is valid.

    Raises
    ------
    DeploymentError
        If there is a certificate of an authority without its key.
    """
    files = Certificates.in_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority_key_file = folder / "ca.key"
    if files.authority.exists() and not authority_key_file.exists():
        raise DeploymentError(
            f"{authority_key_file} is missing, with which {files.authority} signs: put it back, or remove "
            f"{files.authority} and give the new one to all devices"
        )
    if files.authority.exists():
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        authority_key = load_pem_private_key(authority_key_file.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    else:
        authority_key = _new_key(authority_key_file)
        name = _name("fleet authority")
        builder = _builder(name, name, authority_key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        authority = builder.sign(authority_key, hashes.SHA384())
        files.authority.write_bytes(authority.public_bytes(Encoding.PEM))

    key = _new_key(files.key)
    names = x509.SubjectAlternativeName([_host(host) for host in dict.fromkeys([*hosts, *OWN_NAMES])])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = _builder(authority.subject, _name(hosts[0]), key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(signer, critical=False).add_extension(names, critical=False)
    files.certificate.write_bytes(builder.sign(authority_key, hashes.SHA384()).public_bytes(Encoding.PEM))
    return files


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def main() -> int:
    """Make or renew the certificates, and say what goes where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", action="append", required=True, help="name or address of the SuperLink; any number")
    parser.add_argument("--days", type=int, default=SUPERLINK_DAYS)
    args = parser.parse_args()
    files = make_certificates(args.folder, args.host, days=args.days)
    print(f"for the SuperLink: {files.certificate} and {files.key}, valid {args.days} days for {', '.join(args.host)}")
    print(f"for every device:  {files.authority}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
