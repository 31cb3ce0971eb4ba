"""Models that streams can be made of."""

from fastrnn.arrays import State
from fastrnn.models.module import Named
from fastrnn.streams.base import Stateful
from fastrnn.streams.cpu import Stream
from fastrnn.streams.source import Source


class Streamable(Named, Source[State]):
    """A model that can run as a stream: a layer, a cell, or several one after the other."""

    def stream(self, batch_size: int = 1, *, weights: str | None = None) -> Stateful[State]:
        """A stream of this model: one step, or a block of them, at a time.

        batch_size: B, the rows that are stepped together.
        weights: how they are stored, which is what bounds a step of one row: in full
            ("float32", or "float64" of a model of that type), or of a float32 model "bf16" or
            "int8" (8 bits and a scale for each row). State and arithmetic are in full. None
            is in full, and "bf16" for a layer of bfloat16.

        Streams share the weights, packed once; each owns its state and buffers, and keeps
        the parameters it was made with until its `refresh`. Making the first stream of
        some sizes compiles it, once for this machine. Raises ValueError for a bidirectional
        layer, whose outputs need the future.

        A model with device="cuda" gives a `fastrnn.streams.cuda.CudaStream`, weights in full.
        """
        if self._on_gpu():
            from fastrnn.streams.cuda import CudaStream

            return CudaStream(self, batch_size, weights=weights)
        return Stream(self, batch_size, weights=weights)
