"""How many threads models are trained with in an experiment: one."""

from __future__ import annotations

from collections.abc import Iterable

from fedgc.tasks.build import WITHOUT_TORCH


def one_thread(tasks: Iterable[str]) -> None:
    """Keep torch and the linear algebra of numpy and scipy to one thread.

    Models and systems here are small, and sums then do not depend on the number of cores. Processes that run at once,
    each with a thread for every core, keep each other waiting. If none of these tasks needs torch it is not loaded,
    which takes a second.
    """
    import scipy.linalg  # noqa: F401, PLC0415  (has a library of its own, and only what is loaded can be limited)
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    threadpool_limits(1, user_api="blas")
    if set(tasks) <= set(WITHOUT_TORCH):
        return
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
