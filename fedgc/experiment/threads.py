"""How many threads models are trained with in an experiment: one."""

from __future__ import annotations

from collections.abc import Iterable

from fedgc.tasks.build import WITHOUT_TORCH


def one_thread(tasks: Iterable[str]) -> None:
    """Keep torch to one thread: models here are small, and sums then do not depend on the number of cores.

    If none of these tasks needs torch it is not loaded, which takes a second.
    """
    if set(tasks) <= set(WITHOUT_TORCH):
        return
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
