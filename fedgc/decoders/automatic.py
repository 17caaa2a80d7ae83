"""The decoder that is taken where none is named."""

from __future__ import annotations

#: Stands for the decoder that :func:`automatic_decoder` names.
AUTO = "auto"


def automatic_decoder(*, memory: bool, foreseen: bool) -> str:
    """Return the name of the decoder.

    Parameters
    ----------
    memory : bool
        Whether past updates are remembered, and changes since are decoded.
    foreseen : bool
        Whether anything is chosen by the residual error that is foreseen: work lists, or deadlines.

    Notes
    -----
    Without a memory it is the optimal unbiased decoder: what stragglers leave out would stay left out. With one a bias
    fades as the changes do, and least squares, which takes each change once as it is, bears larger steps than weights
    above one do: with a memory it needs fewer rounds than unbiased weights on all four of the base paper's fleets, each
    with its step tuned (``experiments/paper/decoders.toml``: 147, 451, 87, 147 against 170, never, 107, 193). But its
    error in a single round is never more than one, however little comes, so that nothing can be chosen by it: the
    shortest deadline would always be best.

    Examples
    --------
    >>> automatic_decoder(memory=False, foreseen=False), automatic_decoder(memory=True, foreseen=True)
    ('optimal-unbiased', 'optimal-unbiased')
    >>> automatic_decoder(memory=True, foreseen=False)
    'least-squares'
    """
    return "least-squares" if memory and not foreseen else "optimal-unbiased"
