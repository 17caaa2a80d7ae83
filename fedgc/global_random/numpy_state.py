"""The state of numpy's global generator: kept, and put back, in a tenth of the time that numpy's functions take."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

#: Bytes of a Mersenne Twister's state in memory: 624 words of 32 bits, and the position in them.
_BYTES = 4 * 624 + ctypes.sizeof(ctypes.c_int)

#: The last states that were read in full and held no normal draw that numpy has put by: those of server and client.
_known: deque[bytes] = deque(maxlen=4)


def keep_numpy_state() -> Callable[[], None]:
    """Return what puts the present state of numpy's global generator back.

    Notes
    -----
    ``numpy.random.get_state`` and ``set_state`` take some 35 us each, for a loop over the words in Python: a tenth of
    what a client's call takes in the embedded runtime, and nearly always for a state that nobody has touched since the
    last call. So the words are compared, and put back, as bytes, at the address that numpy documents
    (``BitGenerator.ctypes.state_address``). Not among them is a normal draw that numpy has put by. One comes only with
    draws that move the words, so that a state which was known to be without is so still, unless the very same has been
    set by hand with one. Whatever is not a Mersenne Twister, or laid out otherwise, goes by numpy's functions.

    Examples
    --------
    >>> put_back = keep_numpy_state()
    >>> first = np.random.normal(size=3)
    >>> put_back()
    >>> bool((np.random.normal(size=3) == first).all())
    True
    """
    generator = get_bit_generator()
    words = None
    if isinstance(generator, np.random.MT19937):
        words = ctypes.string_at(generator.ctypes.state_address, _BYTES)
    if words is None or words not in _known:
        state = np.random.get_state()  # noqa: NPY002
        _, key, position, has_normal, _ = state
        if has_normal or words != np.asarray(key).tobytes() + np.intc(position).tobytes():
            return lambda: np.random.set_state(state)  # noqa: NPY002
        _known.append(words)

    def put_back() -> None:
        if get_bit_generator() is not generator:
            set_bit_generator(generator)
        np.random.seed(0)  # noqa: NPY002  (forgets a normal draw that has been put by)
        ctypes.memmove(generator.ctypes.state_address, words, _BYTES)

    return put_back
