"""The commands by which a fleet's SuperLink and SuperNodes are started."""

from __future__ import annotations

import sys
from pathlib import Path

from certificates import Certificates
from fleet import HOST
from node_keys import NodeKey


def supernode_command(
    port: int, own_port: int, config: str, *, files: Certificates | None, key: NodeKey | None
) -> list[str]:
    """Return the command of a SuperNode; without certificates it talks plain text, without a key it has no name."""
    command = [sys.executable, str(Path(__file__).with_name("watch_supernode.py")), "flower-supernode"]
    command += ["--superlink", f"{HOST}:{port}", "--host", HOST, "--port", str(own_port)]
    command += ["--node-config", config]
    command += ["--insecure"] if files is None else ["--root-certificates", str(files.authority)]
    return command + ([] if key is None else ["--auth-supernode-private-key", str(key.private)])


def superlink_command(port: int, files: Certificates | None, database: Path | None) -> list[str]:
    """Return the command of a SuperLink; without certificates it talks plain text, without a file it forgets."""
    command = ["flower-superlink", "--host", HOST, "--port", str(port), "--disable-runtime-dependency-installation"]
    if files is None:
        command += ["--insecure"]
    else:
        command += ["--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)]
        command += ["--ssl-keyfile", str(files.key), "--enable-supernode-auth"]
    return command + ([] if database is None else ["--database", str(database)])
