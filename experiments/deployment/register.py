r"""Register the public keys of many nodes with a SuperLink, in one process: `flwr` takes a second to load for each.

    .venv/bin/python experiments/deployment/register.py fleet fleet/keys/*.pub

The first argument is the connection's name in flwr's configuration. Keys that are registered already are passed over.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import click
from deployment_error import DeploymentError, exit_code


def main() -> int:
    """Register the keys."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connection")
    parser.add_argument("key", type=Path, nargs="+")
    args = parser.parse_args()
    from flwr.cli.app import app  # noqa: PLC0415  (what takes so long)

    for key in args.key:
        try:
            app(["supernode", "register", str(key), args.connection], standalone_mode=False)
        except click.ClickException as error:
            said = " ".join(error.format_message().split())
            if "already in use" not in said:
                raise DeploymentError(f"{key} is not registered with {args.connection}: {said}") from error
            print(f"{key} is registered already")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
