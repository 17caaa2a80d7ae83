"""What is replayed: a code, a decoder, and whether past updates are remembered."""

from __future__ import annotations

from dataclasses import dataclass

from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.decoders import Decoder
from fedgc.schemes import BuildCode


@dataclass(frozen=True, eq=False)
class Method:
    """A code and a decoder with whatever else they need.

    Attributes
    ----------
    code : callable or None
        Makes the code from straggle probabilities, load and generator, as in ``fedgc.schemes.CODES``; None for blocks
        that are sized by speed.
    decoder : Decoder
        The decoder.
    load : int
        Copies of each shard, for codes that leave the choice.
    deadline : float or None
        Seconds that a round lasts at most; None until everyone has answered.
    memory : bool
        Whether each unit's last recovered update is kept, and changes since are decoded; see
        :class:`fedgc.memory.UpdateMemory`.
    coherence : float or None
        Coherence between single shards that the decoder is calibrated with; None if it is learnt from what arrives.
    """

    code: BuildCode | None
    decoder: Decoder
    load: int = 2
    deadline: float | None = None
    memory: bool = False
    coherence: float | None = None

    @property
    def first_coherence(self) -> CoherenceEstimate:
        """What is known of the coherence before the first round."""
        if self.coherence is None:
            return CoherenceEstimate()
        return KnownCoherence(energy=1.0, overlap=self.coherence)
