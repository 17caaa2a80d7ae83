"""What would keep a fleet from working is told in one line, with what to do, before anything starts."""

from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from certificates import Certificates, make_certificates  # isort: skip
from deployment_error import DeploymentError  # isort: skip
from node_keys import make_node_key  # isort: skip
from own_files import check_certificates, check_node_key, check_port_free  # isort: skip
from preflight import check_superlink  # isort: skip
from processes import free_ports  # isort: skip

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "experiments" / "deployment"


def one_line(script: str, *arguments: object) -> str:
    """The error of a script that must fail."""
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not done.stdout
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates and the keys of two nodes."""
    made = tmp_path_factory.mktemp("fleet")
    make_certificates(made, ["localhost"])
    make_node_key(made, "node-0")
    make_node_key(made, "node-1")
    return made


@pytest.fixture(scope="module")
def files(folder: Path) -> Certificates:
    return Certificates.in_folder(folder)


def test_what_is_made_passes(folder: Path, files: Certificates) -> None:
    check_certificates(files, "localhost")
    check_certificates(files, "127.0.0.1")
    check_node_key(folder / "node-0")
    check_port_free("127.0.0.1", free_ports(1)[0])
    for private in (files.key, folder / "ca.key", folder / "node-0"):
        assert private.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not shutil.which("openssl") or not shutil.which("ssh-keygen"), reason="needs OpenSSL and OpenSSH")
def test_openssl_and_openssh_agree(folder: Path, files: Certificates, tmp_path: Path) -> None:
    """Flower's SuperNodes verify with OpenSSL, and guides make keys with OpenSSH."""
    said = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", files.authority, files.certificate],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", folder / "node-0"], capture_output=True, text=True, check=True
    ).stdout
    assert public.split()[:2] == (folder / "node-0.pub").read_text().split()[:2]
    for name, password in (("own", ""), ("locked", "secret")):
        make = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", password, "-C", "", "-f", tmp_path / name]
        subprocess.run(make, check=True)
    check_node_key(tmp_path / "own")
    with pytest.raises(DeploymentError, match="without a password"):
        check_node_key(tmp_path / "locked")


def test_renewal_keeps_the_authority_and_the_nodes_keys(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, ["localhost"])
    authority, certificate = first.authority.read_bytes(), first.certificate.read_bytes()
    key = make_node_key(tmp_path, "node-0").private.read_bytes()
    again = make_certificates(tmp_path, ["localhost", "example.org"])
    check_certificates(again, "example.org")
    assert again.authority.read_bytes() == authority
    assert again.certificate.read_bytes() != certificate
    assert make_node_key(tmp_path, "node-0").private.read_bytes() == key
    (tmp_path / "ca.key").unlink()
    assert "ca.key is missing" in one_line("certificates.py", tmp_path, "--host", "localhost")


def foreign_authority(files: Certificates, tmp_path: Path) -> Certificates:
    return Certificates(make_certificates(tmp_path, ["localhost"]).authority, files.certificate, files.key)


def another_key(files: Certificates, tmp_path: Path) -> Certificates:
    return Certificates(files.authority, files.certificate, make_certificates(tmp_path, ["localhost"]).key)


def expired(files: Certificates, tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path, ["localhost"], days=0)


def missing(files: Certificates, tmp_path: Path) -> Certificates:
    return Certificates(files.authority, files.certificate, tmp_path / "superlink.key")


def no_certificate(files: Certificates, tmp_path: Path) -> Certificates:
    return Certificates(files.authority, files.key, files.key)


def no_key(files: Certificates, tmp_path: Path) -> Certificates:
    return Certificates(files.authority, files.certificate, files.certificate)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (foreign_authority, "is not signed by .*ca.crt: use those that were made together"),
        (another_key, "is not the key of .*superlink.crt: use the two"),
        (expired, "and not now: renew it with certificates.py, or set this machine's clock"),
        (missing, r"superlink.key must be .* cannot be read \(no such file or directory\): certificates.py makes it"),
        (no_certificate, "is no certificate in PEM format: make it anew"),
        (no_key, "is no private key in PEM format"),
    ],
)
def test_wrong_certificates(
    spoil: Callable[[Certificates, Path], Certificates], said: str, files: Certificates, tmp_path: Path
) -> None:
    with pytest.raises(DeploymentError, match=said):
        check_certificates(spoil(files, tmp_path))


def signed(name: str, key: Any, issuer: x509.Name, by: Any, *, authority: bool, days: float = 1.0) -> x509.Certificate:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(issuer, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=2.0))
    made = made.not_valid_after(now + timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return made.sign(by, hashes.SHA256())


@pytest.mark.parametrize(("spoil", "said"), [("", ""), ("missing", "is not signed by"), ("over", "and not now")])
def test_a_chain_with_certificates_between(spoil: str, said: str, tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    root = signed("root", keys[0], root_name, keys[0], authority=True)
    between = signed("between", keys[1], root.subject, keys[0], authority=True, days=-1.0 if spoil == "over" else 1.0)
    own = signed("localhost", keys[2], between.subject, keys[1], authority=False)
    chain = [own] if spoil == "missing" else [own, between]
    files = Certificates.in_folder(tmp_path)
    files.authority.write_bytes(root.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    files.key.write_bytes(keys[2].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(DeploymentError, match=said) if spoil else contextlib.nullcontext():
        check_certificates(files, "localhost")
    if not spoil:  # what a SuperNode would check agrees
        asked = ["openssl", "verify", "-CAfile", files.authority, "-untrusted", files.certificate, files.certificate]
        assert subprocess.run(asked, check=False, capture_output=True).returncode == 0


@contextmanager
def saying(answer: bytes) -> Iterator[int]:
    """A server that says this to whoever comes, in plain text."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
    thread.join(10.0)


def test_what_is_no_superlink_is_told_in_one_line() -> None:
    with saying(b"SSH-2.0-OpenSSH_9.2\r\nmore\r\n") as port, pytest.raises(DeploymentError) as told:
        check_superlink(f"127.0.0.1:{port}", None, insecure=True)
    assert "\n" not in str(told.value) and "\r" not in str(told.value)
    for date in (b"yesterday", b"Thu, 01 Jan 1970 00:00:00 -0000"):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: " + date + b"\r\n\r\n"
        wrong = (
            pytest.raises(DeploymentError, match=r"clock is .* ahead") if b"1970" in date else contextlib.nullcontext()
        )
        with saying(head) as port, wrong:
            check_superlink(f"127.0.0.1:{port}", None, insecure=True)


def test_names_and_ways_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeploymentError, match="--superlink must be HOST:PORT"):
        check_superlink("superlink..example.org:9093", None)

    def no_way(*arguments: object, **options: object) -> None:  # no network here that could be asked for it
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(socket, "create_connection", no_way)
    with pytest.raises(DeploymentError, match=r"there is no way to 10.0.0.1:9093 \(no route to host\)"):
        check_superlink("10.0.0.1:9093", None)


def test_a_certificate_for_other_names(files: Certificates) -> None:
    with pytest.raises(DeploymentError, match=r"valid for localhost, 127.0.0.1 and not for 10.0.0.1: .* --host 10"):
        check_certificates(files, "10.0.0.1")


def test_missing_and_wrong_keys_of_nodes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"cannot be read .*: ssh-keygen -t ecdsa -b 384"):
        check_node_key(tmp_path / "node-9")
    with pytest.raises(DeploymentError, match="no private key in OpenSSH's format"):
        check_node_key(folder / "node-0.pub")
    path = tmp_path / "key"
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    with pytest.raises(DeploymentError, match="must be an elliptic key on a NIST curve"):
        check_node_key(path)
    path.write_bytes((folder / "node-0").read_bytes())
    path.chmod(0o644)
    with pytest.raises(DeploymentError, match=r"open to other users: chmod 600 .*key"):
        check_node_key(path)


def test_nobody_at_the_address(files: Certificates) -> None:
    port = free_ports(1)[0]
    with pytest.raises(DeploymentError, match=f"nothing listens at 127.0.0.1:{port}: start the SuperLink"):
        check_superlink(f"127.0.0.1:{port}", files.authority)
    with pytest.raises(DeploymentError, match=r"no address is known for superlink.invalid"):
        check_superlink("superlink.invalid:9093", files.authority)
    for address in ("superlink.example.org", "localhost:port", "localhost:70000", ":9093"):
        with pytest.raises(DeploymentError, match="--superlink must be HOST:PORT"):
            check_superlink(address, files.authority)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DeploymentError, match=r"does not answer in 0.5 s: .* firewall"):
            check_superlink(f"127.0.0.1:{port}", files.authority, seconds=0.5)


@contextmanager
def listening(files: Certificates) -> Iterator[int]:
    """A server that talks TLS with these certificates, to whoever trusts them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_server(("0.0.0.0", 0)) as plain:

        def serve() -> None:
            with contextlib.suppress(OSError):  # of which an SSLError is one
                connection, _ = plain.accept()
                with connection, context.wrap_socket(connection, server_side=True) as talking:
                    talking.recv(1000)
                    talking.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(plain.getsockname()[1])
    thread.join(10.0)


def test_a_superlink_that_is_not_trusted(files: Certificates, tmp_path: Path) -> None:
    """What a device sees: another authority, another name, a certificate that is over, plain text, another server."""
    other = make_certificates(tmp_path / "other", ["localhost"]).authority
    over = make_certificates(tmp_path / "over", ["localhost"], days=0)
    with listening(files) as port:
        said = one_line("preflight.py", "node", "--superlink", f"localhost:{port}", "--root-certificates", other)
        assert f"the certificate of localhost:{port} is not signed by {other}" in said
        assert "copy the ca.crt of that SuperLink to this device" in said
    with listening(files) as port, pytest.raises(DeploymentError, match=r"is not for 127.0.0.2 .* --host 127.0.0.2"):
        check_superlink(f"127.0.0.2:{port}", files.authority)
    with listening(over) as port, pytest.raises(DeploymentError, match=r"is not valid now .*: renew it, or set this"):
        check_superlink(f"localhost:{port}", over.authority)
    with listening(files) as port, pytest.raises(DeploymentError, match="it may expect TLS: give --root-certificates"):
        check_superlink(f"localhost:{port}", None, insecure=True)
    with listening(files) as port, pytest.raises(DeploymentError, match=r"is no SuperLink .* answers 404"):
        check_superlink(f"localhost:{port}", files.authority)


@needs_proc
def test_scripts_tell_it_in_one_line(folder: Path, tmp_path: Path) -> None:
    own = ("--certificates", folder, "--keys", folder, "--logs", tmp_path / "logs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = one_line("loopback_fleet.py", *own, "--nodes", 2, "--port", port)
        assert f"port {port} of 127.0.0.1 cannot be had (address already in use)" in said
    for nodes in (0, -1):
        assert "--nodes must be at least 1" in one_line("loopback_fleet.py", *own, "--nodes", nodes)
    in_a_file = ("--logs", folder / "ca.crt" / "logs")
    assert "--logs must be a folder that can be" in one_line("loopback_fleet.py", "--nodes", 2, *in_a_file)
    said = one_line("loopback_fleet.py", *own, "--nodes", 3)
    assert "node-2 must be the node's private key" in said
    other = make_certificates(tmp_path / "other", ["superlink.example.org"])
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in (folder / "ca.crt", other.certificate, other.key):
        shutil.copy(file, mixed)
    assert "is not signed by" in one_line("loopback_fleet.py", "--certificates", mixed, "--logs", tmp_path / "logs")
    port, authority = free_ports(1)[0], ("--root-certificates", other.authority)
    assert "nothing listens at" in one_line("preflight.py", "node", "--superlink", f"localhost:{port}", *authority)
    key = ("--auth-supernode-private-key", tmp_path / "node-0")
    assert "node-0 must be" in one_line("preflight.py", "node", "--superlink", f"localhost:{port}", *authority, *key)
    superlink = ("--ssl-certfile", other.certificate, "--ssl-keyfile", other.key, "--ssl-ca-certfile", other.authority)
    said = one_line("preflight.py", "superlink", *superlink, "--host", "10.0.0.1", "--port", port)
    assert "is valid for superlink.example.org, localhost, 127.0.0.1 and not for 10.0.0.1" in said
