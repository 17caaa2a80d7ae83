r"""Look, before a SuperNode or a SuperLink starts, for what would keep it from working; one clear line if there is any.

Flower's SuperNode tries again for ever, without saying why, if nobody answers or not as it talks; a wrong certificate
or key is told with a code and many lines. This takes its options, and is the `ExecStartPre` of the units in `systemd/`:

    .venv/bin/python experiments/deployment/preflight.py node --superlink superlink.example.org:9093 \
        --root-certificates ca.crt --auth-supernode-private-key node-0
    .venv/bin/python experiments/deployment/preflight.py superlink --port 9093 --ssl-ca-certfile ca.crt \
        --ssl-certfile superlink.crt --ssl-keyfile superlink.key
"""

from __future__ import annotations

import argparse
import errno
import http.client
import socket
import ssl
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from certificates import Certificates
from deployment_error import DeploymentError, exit_code, reason_of
from own_files import check_certificates, check_node_key, check_port_free, read_certificates

#: Seconds for an answer.
TIMEOUT = 10.0
#: Seconds by which a node's clock may differ from the SuperLink's: Flower 1.41 refuses signatures from the future by
#: more than 5 s, and older than 305 s; dates in answers are of whole seconds.
MOST_AHEAD, MOST_BEHIND = 5.0, 300.0


def check_superlink(address: str, authority: Path | None, *, insecure: bool = False, seconds: float = TIMEOUT) -> None:
    """Raise DeploymentError if no SuperLink answers as this device would talk to it, or the clocks are apart.

    Parameters
    ----------
    address : str
        Host and port.
    authority : Path or None
        Certificate of the authority that has signed the SuperLink's; None for those that the system trusts.
    insecure : bool
        Whether without TLS.
    seconds : float
        How long an answer may take.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise DeploymentError(f"--superlink must be HOST:PORT; got {address}")
    if authority is not None:
        read_certificates(authority)
    context = None if insecure else ssl.create_default_context(cafile=authority)
    connection = (
        http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)
        if context is None
        else http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=seconds, context=context)
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        status, date = answer.status, answer.getheader("Date")
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(_distrust(address, host, authority, error)) from error
    except ssl.SSLError as error:
        raise DeploymentError(
            f"{address} does not speak TLS ({reason_of(error)}): start the SuperLink with certificates, or if you must "
            "all with --insecure"
        ) from error
    except UnicodeError as error:  # a label of the name is empty, or too long
        raise DeploymentError(f"--superlink must be HOST:PORT; got {address} ({reason_of(error)})") from error
    except (socket.gaierror, TimeoutError, ConnectionRefusedError) as error:
        raise DeploymentError(_unreachable(address, host, error, seconds)) from error
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN):
            raise DeploymentError(
                f"there is no way to {address} ({reason_of(error)}): check this machine's network and --superlink"
            ) from error
        hint = "it may expect TLS: give --root-certificates instead of --insecure" if insecure else "is it a SuperLink?"
        raise DeploymentError(f"{address} closes the connection ({reason_of(error)}): {hint}") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise DeploymentError(f"{address} is no SuperLink of Flower 1.41 (/health answers {status}): check --superlink")
    instant = _instant(date)
    if instant is not None:
        ahead = (datetime.now(UTC) - instant).total_seconds()
        if not -MOST_BEHIND < ahead < MOST_AHEAD:
            raise DeploymentError(
                f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of "
                f"{address}, which would refuse its signatures: switch on time synchronisation (timedatectl "
                "set-ntp true)"
            )


def _instant(date: str | None) -> datetime | None:
    """Return the instant that an answer is from, None if it does not say so in a way that can be read."""
    try:
        instant = None if date is None else parsedate_to_datetime(date)
    except ValueError:
        return None
    return instant if instant is None or instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _distrust(address: str, host: str, authority: Path | None, error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message
    if "match" in said or "valid for" in said:
        return f"the certificate of {address} is not for {host} ({said}): make it anew with --host {host}"
    if "expired" in said or "not yet valid" in said:
        return f"the certificate of {address} is not valid now ({said}): renew it, or set this machine's clock"
    by = "this system's authorities" if authority is None else str(authority)
    return (
        f"the certificate of {address} is not signed by {by} ({said}): copy the ca.crt of that SuperLink to this device"
    )


def _unreachable(address: str, host: str, error: OSError, seconds: float) -> str:
    if isinstance(error, socket.gaierror):
        return f"no address is known for {host}: check --superlink and this machine's name server"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address}: start the SuperLink, or check --superlink"
    return f"{address} does not answer in {seconds:g} s: is it up, and does a firewall let this device out to it?"


def main() -> int:
    """Check a node's or a SuperLink's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    node = kinds.add_parser("node", help="what flower-supernode would be given")
    node.add_argument("--superlink", required=True, metavar="HOST:PORT")
    node.add_argument("--root-certificates", type=Path)
    node.add_argument("--auth-supernode-private-key", type=Path)
    node.add_argument("--insecure", action="store_true")
    superlink = kinds.add_parser("superlink", help="what flower-superlink would be given")
    superlink.add_argument("--host", default="127.0.0.1")
    superlink.add_argument("--port", type=int, default=8000)
    superlink.add_argument("--ssl-ca-certfile", type=Path, required=True)
    superlink.add_argument("--ssl-certfile", type=Path, required=True)
    superlink.add_argument("--ssl-keyfile", type=Path, required=True)
    args = parser.parse_args()
    if args.kind == "node":
        if args.auth_supernode_private_key is not None:
            check_node_key(args.auth_supernode_private_key)
        check_superlink(args.superlink, args.root_certificates, insecure=args.insecure)
    else:
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)  # what its own helper calls it by
        check_certificates(Certificates(args.ssl_ca_certfile, args.ssl_certfile, args.ssl_keyfile), own)
        check_port_free(args.host, args.port)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
