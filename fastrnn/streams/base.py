"""What streams share, wherever they run: a model, its state, its rows."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn.streams.snapshot import Snapshot
from fastrnn.streams.source import LayerState, Source, fingerprint


class Stateful(Generic[State]):
    """A model that takes one step, or a block of steps, at a time, and keeps its state.

    Attributes:
        model: what it was made from.
        batch_size, input_size, output_size: B, I, O.
        dtype: the float type of all its arrays.
        weights: how its weights are stored.
    """

    model: Source[State]
    batch_size: int
    input_size: int
    output_size: int
    dtype: np.dtype[Any]
    weights: str

    _on_gpu = False  # where it runs

    def _set_up_rows(self, model: Source[State], batch_size: int) -> None:
        self.model = model
        self._check_model()
        self.batch_size = check.size("batch_size", batch_size)
        self.dtype = model.dtype
        self._taken = np.zeros(self.batch_size, np.bool_)
        self._take_parameters()

    def _check_model(self) -> None:
        """Raise RuntimeError if the model's weights are for another device."""
        if self.model._on_gpu() != self._on_gpu:
            here, there = ("GPU", "CPU") if self._on_gpu else ("CPU", "GPU")
            raise RuntimeError(
                f"this stream runs on the {here}, its model is on the {there}: make another by "
                "its stream()"
            )

    def _take_parameters(self) -> None:
        """Remember the parameters as they are now."""
        self._parameters = self.model.parameters
        self._model: str | None = None  # its fingerprint, once it is needed

    @abstractmethod
    def step(self, x: Any, out: Any = None, copy: bool | None = None) -> Array:
        """One step."""

    @abstractmethod
    def block(self, X: Any, out: Any = None) -> Array:
        """Some steps."""

    @abstractmethod
    def refresh(self) -> None:
        """Take up the model's parameters as they are now; the state stays."""

    @abstractmethod
    def warmup(self) -> None:
        """Compile, or load, whatever a call may need; nothing of this stream changes."""

    @property
    def specialised(self) -> bool:
        """Whether steps run code compiled for this stream's own sizes."""
        return True

    @abstractmethod
    def _in_use(self) -> AbstractContextManager[Any]:
        """Keep other threads away; raise RuntimeError if one is there."""

    @abstractmethod
    def _states(self) -> Sequence[LayerState]:
        """The state itself, by layers."""

    @abstractmethod
    def _starts(self) -> Sequence[LayerState]:
        """The states that it begins from, by layers."""

    def _put(self, own: Array, new: Any) -> None:
        """Write an array of the state."""
        own[...] = new

    def _host(self, own: Array) -> Array:
        """A copy of an array of the state, as NumPy has it."""
        return own.copy()

    def _checked_input(self, x: Any, time: bool) -> Array:
        """The input of a step, or of a block of them, as it has to be."""
        B, I = self.batch_size, self.input_size
        given = check.floats("input", x, self.dtype, "this stream")
        first = given.shape[: int(time)]
        if given.shape != (*first, B, I) and not (B == 1 and given.shape == (*first, I)):
            t = "T, " if time else ""
            wanted = f"({t}B, I) = ({t}{B}, {I})"
            if B == 1:
                wanted += f" or (T, I) = (T, {I})" if time else f" or (I,) = {(I,)}"
            raise ValueError(f"input has shape {given.shape}, wanted {wanted}")
        return given

    def _copies(self, copy: Any, out: Any) -> bool:
        """Whether a copy of the output is wanted, which must have no other place to go then."""
        wanted = copy is not None and check.flag("copy", copy)
        if wanted and out is not None:
            raise ValueError("copy is True and out is given, wanted one of them")
        return wanted

    def _rows(self, rows: Any) -> Any:
        """Numbers of rows, checked; all if None."""
        if rows is None:
            return slice(None)
        chosen = np.atleast_1d(check.array("rows", rows))
        if chosen.size == 0:
            return chosen.astype(np.int64)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError(f"rows is {rows!r}, wanted numbers of rows")
        wrong = chosen[(chosen < 0) | (chosen >= self.batch_size)]
        if wrong.size:
            raise ValueError(f"rows holds {wrong[0]}, wanted 0 to {self.batch_size - 1}")
        return chosen

    def reset(self, rows: Any = None) -> None:
        """Begin anew, from states of zeros, or from those that the model has learned.

        rows: numbers of the rows that do, all if None. Raises TypeError or ValueError for
        what is no row.
        """
        chosen = self._rows(rows)
        with self._in_use():
            for own, start in zip(self._states(), self._starts(), strict=True):
                for mine, its in zip(own, start, strict=True):
                    if mine.size:  # a cell may have no state but h
                        mine[..., chosen, :] = its[..., chosen, :]

    @property
    def state(self) -> State:
        """The state, a copy, laid out as the model's own calls take it; setting None resets it."""
        with self._in_use():
            return self.model._join_layers(iter(self._states()))

    @state.setter
    def state(self, state: State | None) -> None:
        if state is None:
            self.reset()
        else:
            self._set(self.model._split_layers("state", state, self.batch_size))

    def _set(self, layers: Sequence[LayerState]) -> None:
        with self._in_use():
            for own, new in zip(self._states(), layers, strict=True):
                for mine, its in zip(own, new, strict=True):
                    if mine.size:
                        self._put(mine, its)

    def snapshot(self) -> Snapshot:
        """The state as it is now, for `restore`, here or, as bytes, in another process."""
        with self._in_use():
            arrays = {}
            for k, (h, rest) in enumerate(self._states()):
                arrays[f"{k}.h"] = self._host(h)
                arrays[f"{k}.rest"] = self._host(rest)
        return Snapshot(self._fingerprint(), arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to the state of a snapshot, and go on from there with the same bits.

        Raises TypeError for what is no snapshot, ValueError for one of another model, or of
        the same with other parameters, or of another batch size.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"snapshot is a {type(snapshot).__name__}, wanted a Snapshot")
        if snapshot.model != self._fingerprint():
            raise ValueError(
                f"snapshot is of another model or of other parameters: {snapshot.model}, this "
                f"stream's are {self._fingerprint()}"
            )
        layers = []
        for k, (h, rest) in enumerate(self._states()):
            found = snapshot.arrays.get(f"{k}.h"), snapshot.arrays.get(f"{k}.rest")
            for name, got, own in zip(("h", "rest"), found, (h, rest), strict=True):
                if got is None or got.shape != own.shape or got.dtype != own.dtype:
                    came = "nothing" if got is None else f"{got.dtype} {got.shape}"
                    raise ValueError(
                        f"snapshot holds {came} as {k}.{name}, wanted {own.dtype} {own.shape}"
                    )
            layers.append(found)
        self._set(layers)  # type: ignore[arg-type]

    def _fingerprint(self) -> str:
        if self._model is None:
            self._model = fingerprint(self.model, self._parameters, self.weights)
        return self._model

    def add_stream(self) -> int:
        """Take a free row, which begins anew, for a client that comes; the number of the row.

        Raises RuntimeError if all are taken.
        """
        free = np.flatnonzero(~self._taken)
        if free.size == 0:
            raise RuntimeError(f"all {self.batch_size} rows of this stream are taken")
        row = int(free[0])
        self.reset([row])
        self._taken[row] = True
        return row

    def remove_stream(self, row: int) -> None:
        """Give back the row of a client that goes. The others' rows stay as they are.

        Raises TypeError or ValueError for what is no row that `add_stream` gave.
        """
        row = check.size("row", row, least=0, most=self.batch_size - 1)
        if not self._taken[row]:
            raise ValueError(f"row is {row}, which no client has")
        self._taken[row] = False

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied: its memory belongs to this process."""
        raise TypeError("a stream cannot be pickled or copied: take its snapshot, and make another")

    def __repr__(self) -> str:
        """The call that makes another one."""
        return f"{self.model!r}.stream(batch_size={self.batch_size}, weights={self.weights!r})"
