"""A probe of updates: a fixed sample of their entries, from which coherence is estimated without another model."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedgc.memory import StoredUpdate
from fedgc.updates import Arrays, ScaledDifference

#: Entries of a sample, and how many neighbours are taken together: single ones would each cost a trip to memory.
_ENTRIES, _RUN = 1 << 16, 64

#: Runs of one array that are sooner taken one by one than together.
_FEW = 32


class Probe:
    """Takes the same random entries of every update; of small models all.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The global arrays; only names and sizes are used.
    entries : int
        How many entries to take at most.

    Notes
    -----
    Energy and overlap of updates enter decoders as a ratio, which a uniform sample of entries estimates without bias
    of its numerator and denominator. Norms of whole updates, the alternative, would take a further running sum as large
    as the model. A Gram model that is a little off costs a little variance and never bias.

    Examples
    --------
    >>> Probe({"w": np.zeros(3)}).of({"w": np.arange(3.0)}).tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, arrays: Arrays, entries: int = _ENTRIES) -> None:
        sizes = {name: value.size for name, value in arrays.items()}
        total = sum(sizes.values())
        self._old: tuple[Arrays, NDArray[np.float64]] | None = None
        # Places where runs start that are taken together, and the other runs.
        self._at: dict[str, tuple[NDArray[np.intp], list[slice]]] = {}
        if total <= entries:
            self._at = {name: (np.zeros(0, np.intp), [slice(None)]) for name in sizes}
            return
        # With replacement, so that the sample of a model of billions of entries takes no permutation of them.
        runs = np.sort(np.random.default_rng(0).integers(total - _RUN, size=entries // _RUN))
        start = 0
        for name, size in sizes.items():
            here = runs[np.searchsorted(runs, start - _RUN, side="right") : np.searchsorted(runs, start + size)] - start
            whole = (here >= 0) & (here + _RUN <= size) & (here.size > _FEW)
            others = [slice(max(first, 0), min(first + _RUN, size)) for first in here[~whole].tolist()]
            if here.size:
                self._at[name] = here[whole], others
            start += size

    def of(self, update: Arrays) -> NDArray[np.float64]:
        """Return the entries of an update."""
        if isinstance(update, ScaledDifference):
            if self._old is None or self._old[0] is not update.old:
                self._old = update.old, self._entries(update.old)
            change: NDArray[np.float64] = update.scale * (self._entries(update.new) - self._old[1])
            return change
        return self._entries(update)

    def _entries(self, arrays: Arrays) -> NDArray[np.float64]:
        parts = [np.zeros(0)]
        for name, (starts, others) in self._at.items():
            # Of what is stored only the entries that are asked for are read and restored.
            stored = arrays.arrays[name] if isinstance(arrays, StoredUpdate) else None
            flat = np.asarray(arrays[name] if stored is None else stored.values()).reshape(-1)
            taken = [flat[run] for run in others]
            if starts.size:
                taken.append(sliding_window_view(flat, _RUN)[starts].reshape(-1))
            factor = 1.0 if stored is None else stored.factor
            parts += taken if factor == 1.0 else [np.multiply(some, factor, dtype=np.float64) for some in taken]
        return np.concatenate(parts, dtype=np.float64)
