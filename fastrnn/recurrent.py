"""What layers and cells share: a cell of the kernels, and the choice of where a call runs."""

from abc import abstractmethod
from typing import Any

from fastrnn import auto
from fastrnn.check import Array
from fastrnn.parameters import Module
from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cpu import Tape as Pass
from fastrnn_kernels.cpu import Weights


class Recurrent(Module):
    """A module of recurrent cells."""

    input_size: int
    hidden_size: int

    @property
    @abstractmethod
    def _cell(self) -> Cell:
        """The kernels' cell."""

    @property
    def _fan(self) -> int:
        return self.hidden_size

    @abstractmethod
    def _checked_input(self, x: Any) -> tuple[Array, int, int, bool]:
        """The input as it is laid out, T, B, and whether it has an axis of B."""

    def _placed(
        self, T: int, B: int, taping: bool, on_gpu: bool
    ) -> tuple[Any, tuple[Weights, ...]]:
        """The kernels that run a call, and their weights.

        on_gpu: whether an array of the call lies on the GPU.
        """
        version = self._version
        if version.device != "auto" or (version.few >= T * B and not on_gpu):
            return version.kernels, version.weights
        kernels = auto.kernels(self, version.weights, T, B, taping, on_gpu)
        if kernels is version.kernels:
            return kernels, version.weights
        # No lock: two threads that come first both make them, and get the same.
        if kernels not in version.on_gpu:
            version.on_gpu[kernels] = self._make_weights(kernels, version.values)
        return kernels, version.on_gpu[kernels]

    def _gates(self, one: Pass, xp: Any) -> dict[str, Array]:
        """The values (T, B, H) of the gates of one pass, by name."""
        T, B, K, padded = one.saved.shape
        running = one.rows.running
        gates = {}
        for name in self._cell.gates:
            values = xp.zeros((T * B, self.hidden_size), self.dtype)
            position = self._cell.saved.index(name)
            whole = one.saved.reshape(T * B, K, padded)[running, position]
            values[running] = whole[:, : self.hidden_size]
            gates[name] = values.reshape(T, B, self.hidden_size)
        return gates
