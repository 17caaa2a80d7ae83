r"""Keys by which a SuperLink knows its SuperNodes: elliptic, on the curve P-384, in the format of OpenSSH.

    .venv/bin/python experiments/deployment/node_keys.py fleet/keys node-0 node-1 node-2

Each private key stays on its device; the public one (`.pub`) is registered with the SuperLink. The same as
`ssh-keygen -t ecdsa -b 384 -N "" -f node-0`. Keys that exist are kept.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from certificates import write_private
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from deployment_error import exit_code


@dataclass(frozen=True)
class NodeKey:
    """Files of a SuperNode's key pair.

    Attributes
    ----------
    private : Path
        For ``flower-supernode --auth-supernode-private-key``.
    public : Path
        For ``flwr supernode register``.
    """

    private: Path
    public: Path


def make_node_key(folder: Path, name: str) -> NodeKey:
    """Write a key pair, unless there is one of that name, and return its files."""
    files = NodeKey(folder / name, folder / f"{name}.pub")
    folder.mkdir(parents=True, exist_ok=True)
    if not files.private.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        write_private(files.private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        files.public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")
    return files


def main() -> int:
    """Make the keys, and say how to register them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", nargs="+")
    args = parser.parse_args()
    for name in args.name:
        print(f"flwr supernode register {make_node_key(args.folder, name).public}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
