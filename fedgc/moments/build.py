"""Build a rule for the second moment by name."""

from __future__ import annotations

from collections.abc import Mapping

from fedgc.decoders import BoundedMassDecoder, Decoder, LeastSquaresDecoder
from fedgc.moments.base import SecondMoment
from fedgc.moments.scaled_square import ScaledSquare
from fedgc.moments.second_track import SecondTrack
from fedgc.moments.subtracted_variance import SubtractedVariance
from fedgc.validation import one_of

#: The square of the decoded update as it is: no rule.
DECODED = "decoded"
#: The decoders of a second track by name.
SECOND_DECODERS: Mapping[str, type[Decoder]] = {
    decoder.name: decoder for decoder in (LeastSquaresDecoder, BoundedMassDecoder)
}
#: The rules by name.
SECOND_MOMENTS: Mapping[str, type[SecondMoment]] = {
    rule.name: rule for rule in (ScaledSquare, SubtractedVariance, SecondTrack)
}


def build_second_moment(name: str, second_decoder: str | None = None) -> SecondMoment | None:
    """Return the rule of that name; None for the square of the decoded update as it is.

    Parameters
    ----------
    name : str
        One of :data:`SECOND_MOMENTS`, or "decoded".
    second_decoder : str, optional
        For "second-track" one of :data:`SECOND_DECODERS`, "least-squares" if not given.

    Raises
    ------
    ValueError
        If there is no such rule or decoder, or a decoder is given for another rule.

    Examples
    --------
    >>> build_second_moment("subtract").name, build_second_moment("decoded")
    ('subtract', None)
    >>> build_second_moment("scales")
    Traceback (most recent call last):
    ...
    ValueError: second_moment must be one of decoded, scale, second-track, subtract; got 'scales', did you mean scale?
    """
    one_of("second_moment", name, [DECODED, *SECOND_MOMENTS])
    if name == SecondTrack.name:
        track = LeastSquaresDecoder.name if second_decoder is None else second_decoder
        return SecondTrack(SECOND_DECODERS[one_of("second_decoder", track, list(SECOND_DECODERS))]())
    if second_decoder is not None:
        raise ValueError(
            f"second_decoder must be left out unless second_moment is {SecondTrack.name!r}; "
            f"got {second_decoder!r} with {name!r}"
        )
    return None if name == DECODED else SECOND_MOMENTS[name]()
