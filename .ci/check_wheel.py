"""Compare a wheel with the folders it is made from: nothing missing, nothing extra, one namespace."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"fedgc": "fedgc", "strategies": "fedgc/strategies", "clients": "fedgc/clients"}


def main() -> None:
    """Exit with a message unless the wheel given as the only argument holds exactly what the folders hold."""
    wheel = Path(sys.argv[1])
    expected = set()
    for folder, target in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{target}/{path.relative_to(ROOT / folder).as_posix()}")
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    if packed != expected:
        sys.exit(f"wheel differs: missing {sorted(expected - packed)}, extra {sorted(packed - expected)}")
    if not any(name.endswith("/LICENSE") for name in names):
        sys.exit("wheel has no LICENSE")
    print(f"{wheel.name}: {len(packed)} files, as in the folders")


if __name__ == "__main__":
    main()
