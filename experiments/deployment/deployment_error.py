"""What stops a deployment: one line that says what is wrong and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable


class DeploymentError(Exception):
    """Something that the user has to mend; the message says what, and how."""


def exit_code(main: Callable[[], int]) -> int:
    """Run a script's main function; show a deployment error as one line, and return 2 for it."""
    try:
        return main()
    except DeploymentError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


def reason_of(error: BaseException) -> str:
    """Return in a few words of one line why something failed."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).lower().split())
