"""The decoder that is taken where none is named."""

from __future__ import annotations

#: Stands for the decoder that :func:`automatic_decoder` names.
AUTO = "auto"


def automatic_decoder(*, memory: bool) -> str:
    """Return the name of the decoder for runs with a memory of past updates, or without.

    Without one it is the optimal unbiased decoder: what stragglers leave out would stay left out. With one the changes
    since are decoded, and a bias fades as they do; least squares, which takes each change once as it is, then bears
    larger steps than weights above one do. With the step tuned for each it reaches the loss of gradient descent in the
    fewest rounds on the base paper's fleets (``experiments/paper``).

    Examples
    --------
    >>> automatic_decoder(memory=False), automatic_decoder(memory=True)
    ('optimal-unbiased', 'least-squares')
    """
    return "least-squares" if memory else "optimal-unbiased"
