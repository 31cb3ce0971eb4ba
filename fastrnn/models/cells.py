"""The cells: one time step of RNN, LSTM and GRU."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn.device import kernels_of
from fastrnn.models.module import Version
from fastrnn.models.recurrent import Recurrent
from fastrnn.models.streamable import Streamable
from fastrnn.models.tape import Gradients, Tape, check_owner
from fastrnn.streams.source import LayerState
from fastrnn_kernels.cpu.device import Stage, stage_of
from fastrnn_kernels.cpu.sequence.small import SmallCall, is_small
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.weights import Weights

#: Shapes of inputs of which steps are kept prepared, at most, those seen once among them.
_MOST = 16


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


class RecurrentCell(Recurrent, Streamable[State]):
    """One step of a recurrent layer. Use RNNCell, LSTMCell or GRUCell.

    Without the batch axis (unbatched input) B falls out of every shape.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        initial_state: str = "zeros",
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
        **options: Any,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, bias=bias,
            initial_state=initial_state, blocks=blocks, norm=norm, device=device, dtype=dtype,
            **self._with_usual(options),
        )  # fmt: skip
        self._draw(seed)

    def _configure(self, *args: Any, **config: Any) -> None:
        self._set_up_cell(**self._take_options(config))

    def _set_up_cell(
        self, *, input_size: int, hidden_size: int, bias: bool, device: str, dtype: Any
    ) -> None:
        self.input_size = check.size("input_size", input_size)
        self.hidden_size = check.size("hidden_size", hidden_size)
        self.bias = check.flag("bias", bias)
        self._set_up(device, dtype)
        G, GH, I, H = self._cell.G, self._cell.GH, self.input_size, self.hidden_size
        self._shapes = {"weight_ih": (G * H, I)}
        if GH:
            self._shapes["weight_hh"] = (GH * H, self._block)
        if self.bias:
            self._shapes["bias_ih"] = (G * H,)
        if self.bias and GH:
            self._shapes["bias_hh"] = (GH * H,)
        self._shapes |= dict.fromkeys(self._cell.per_unit, (H,))
        self._shapes |= self._norm_shapes()
        self._shapes |= self._start_shapes()

    def _make_weights(
        self, kernels: Kernels, values: Mapping[str, Array], compute: str
    ) -> tuple[Weights, ...]:
        biases = values.get("bias_ih"), values.get("bias_hh")
        none = np.empty((0, self.hidden_size), self.dtype)
        weights = values["weight_ih"], values.get("weight_hh", none)
        others = {"units": self._units(values), "compute": compute, "blocks": self.blocks}
        return (kernels.Weights(self._cell, *weights, *biases, **others, **self._norm_of(values)),)

    def __call__(self, x: Any, state: State | None = None) -> State:
        """One step, without a tape.

        x (B, I) or (I,): the input, in the cell's float type.
        state: h (B, H), for the LSTM (h, c), (B, H) each; if None, zeros, or with
            initial_state="learned" the parameters.

        Returns the new state. Raises TypeError or ValueError for wrong arguments.
        """
        found = self._prepared_step(x, state)
        if found is not None:
            return found
        kernels, _, new, batched, host = self._step(x, state, taping=False)
        return self._joined(kernels, *new, batched, host)

    def _prepared_step(self, x: Any, state: Any) -> State | None:
        """The new state by a call that was prepared, None where there is none.

        A step of little work is prepared when its shape comes for the second time, if its arrays
        lie as kernels read them.
        """
        version, dtype = self._version, self.dtype
        if type(x) is not np.ndarray or x.dtype != dtype or not x.flags.carray or not x.ndim:
            return None
        if state is None and self._learned:
            return None
        call = version.small.get(x.shape, False)
        if not isinstance(call, SmallCall):
            if call is False:  # seen for the first time
                self._keep_small(version, x.shape, None)
                return None
            call = self._prepared_call(version, x.shape) if call is None else None
            self._keep_small(version, x.shape, call or ())
            if call is None:
                return None
        shape, count = (*x.shape[:-1], self.hidden_size), len(self._cell.states)
        start = call.zeros
        if state is not None:
            given = (state,) if count == 1 else state
            if type(given) is not tuple or len(given) != count:
                return None
            for one in given:
                if type(one) is not np.ndarray or one.dtype != dtype:
                    return None
                if one.shape != shape or not one.flags.carray:
                    return None
            start = tuple(map(_address, given))
        new = tuple(np.empty(shape, dtype) for _ in range(count))
        if not call.run((_address(x), call.y, *start, *map(_address, new))):
            return None  # another thread is at it
        return new if count > 1 else new[0]  # type: ignore[return-value]

    @staticmethod
    def _keep_small(version: Version, shape: tuple[int, ...], call: Any) -> None:
        if len(version.small) >= _MOST:
            version.small.clear()
        version.small[shape] = call

    def _prepared_call(self, version: Version, shape: tuple[int, ...]) -> SmallCall | None:
        B = shape[0] if len(shape) == 2 else 1
        if shape[-1] != self.input_size or len(shape) > 2 or len(self._cell.states) > 2:
            return None
        here = version.kernels.ON_HOST and version.few >= B
        weights: Any = version.weights
        return SmallCall(weights, 1, B, 1) if here and is_small(weights, 1, B) else None

    def forward(self, x: Any, state: State | None = None) -> tuple[State, Tape]:
        """One step, and the tape that `backward` needs. Arguments as those of a plain call."""
        self._refuse_tape()
        kernels, one, new, batched, host = self._step(x, state, taping=True)
        shape = (one.rows.B, self.hidden_size) if batched else (self.hidden_size,)
        learned = self._learned and state is None
        tape = Tape(self, shape, batched, False, (one,), None, host, kernels.NAME, learned)
        return self._joined(kernels, *new, batched, host), tape

    def backward(self, tape: Tape, dstate: State) -> Gradients[State]:
        """Gradients of a loss through one step.

        tape: from this cell's `forward`. dstate: gradient of the new state, laid out like it.

        Returns the gradients of x, of the old state, and of each parameter by name. Raises
        TypeError or ValueError for wrong arguments.
        """
        check_owner(tape, Tape, self, "another cell, {!r}")
        if dstate is None:
            raise TypeError("dstate is None, wanted the gradient of the new state")
        kernels = kernels_of(tape.device)
        one = tape.passes[0]
        B, H = one.rows.B, self.hidden_size
        given = self._checked_states("dstate", dstate, B, tape.batched)
        h, rest = self._states(kernels, "dstate", given, B)
        nothing = kernels.xp.zeros((1, B, H), self.dtype)
        run = kernels.start_backward(one, nothing, 0, h, rest)
        kernels.run([run.job], run.work)
        found = run.finish(None)
        host = tape.host
        parameters = self._by_name(kernels, found, "", host)
        if self._learned:
            d_start = [d[None] for d in (found.start_h, *found.start_rest)]
            parameters |= self._start_gradients(d_start, [""], tape)
        return Gradients(
            kernels.give(found.x[0] if tape.batched else found.x[0, 0], host),
            self._joined(kernels, found.start_h, found.start_rest, tape.batched, host),
            parameters,
        )

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        return [stage_of(self._layers()[0], batch_size, storage)]

    def _layers(self) -> list[Any]:
        return list(self._version.weights)

    def _join_layers(self, layers: Iterator[LayerState]) -> State:
        h, rest = next(layers)
        kernels, host = self._version.kernels, isinstance(h, np.ndarray)
        return self._joined(kernels, h.copy(), rest.copy(), True, host)

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        given, version = self._checked_states(name, state, batch_size, True), self._version
        return [self._states(version.kernels, name, given, batch_size, version.values)]

    def _checked_input(self, x: Any) -> tuple[Array, int, int, bool]:
        """The input as it is laid out, T = 1, B, and whether it has an axis of B."""
        if type(x) is not np.ndarray or x.dtype != self.dtype:  # nearly every call's is
            x = check.floats("input", x, self.dtype, self._owner)
        if x.ndim not in (1, 2):
            raise ValueError(f"input has shape {x.shape}, wanted (B, I) or, unbatched, (I,)")
        batched = x.ndim == 2
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input {'(B, I)' if batched else '(I,)'} has I={x.shape[-1]}, "
                f"this cell takes {self.input_size}"
            )
        return x, 1, len(x) if batched else 1, batched

    def _step(
        self, x: Any, state: Any, *, taping: bool
    ) -> tuple[Any, Any, tuple[Array, Array], bool, bool]:
        """What ran it, the tape, the new h and other states, whether batched, whether NumPy's."""
        x, _, B, batched = self._checked_input(x)
        given = self._checked_states("state", state, B, batched)
        host = check.on_host(x)
        on_gpu = not host or not (given is None or all(map(check.on_host, given)))
        kernels, (weights,), version = self._placed(1, B, taping, on_gpu)
        what = (weights,), 1, 1, B, taping, 0
        kernels.check_forward(*what, lambda: f"{self._owner}, B={B}")
        # The tape must not change when the caller fills the same array with the next input.
        x = kernels.take(x.reshape(1, B, self.input_size), "input", copy=taping)
        h, rest = self._states(kernels, "state", given, B, version.values)
        y = kernels.xp.empty((1, B, self.hidden_size), self.dtype)
        rows = Rows.whole(1, B)
        new = kernels.xp.empty_like(h), kernels.xp.empty_like(rest)
        run = kernels.start_forward(weights, x, h, rest, *new, rows, y, 0, taping=taping)
        kernels.run([run.job], run.work)
        return kernels, run.tape, new, batched, host

    def _checked_states(self, name: str, given: Any, B: int, batched: bool) -> list[Array] | None:
        """The states as they were given, each of the right type and shape; None for zeros."""
        if given is None:
            return None
        H, letters = self.hidden_size, self._cell.states
        shape, axes = ((B, H), "(B, H)") if batched else ((H,), "(H,)")
        shapes = [shape] * len(letters)
        return check.states(name, given, letters, shapes, axes, self.dtype, self._owner)

    def _states(
        self,
        kernels: Kernels,
        name: str,
        given: list[Array] | None,
        B: int,
        values: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Checked states as h (B, H) and the others (states but h, B, H); if none, as they begin.

        values: the parameters, of states; gradients begin from zeros.
        """
        H, many = self.hidden_size, len(self._cell.states)
        if given is None and values is not None and self._learned:
            given = list(self._begun(kernels, values, [""], B))
        if given is None:
            zeros = kernels.xp.zeros
            return zeros((B, H), self.dtype), zeros((many - 1, B, H), self.dtype)
        h, *others = (kernels.take(state.reshape(B, H), name) for state in given)
        rest = kernels.xp.empty((many - 1, B, H), self.dtype)
        for k, state in enumerate(others):
            rest[k] = state
        return h, rest

    def _joined(self, kernels: Kernels, h: Array, rest: Array, batched: bool, host: bool) -> State:
        h, rest = kernels.give(h, host), kernels.give(rest, host)
        states = (h, *rest) if batched else (h[0], *rest[:, 0])
        return states[0] if len(states) == 1 else states  # type: ignore[return-value]


class RNNCell(RecurrentCell[Array]):
    """One step of the simple recurrent network, as `torch.nn.RNNCell`.

        h' = φ(W_ih x + b_ih + W_hh h + b_hh),  φ = tanh or ReLU

    Parameters: weight_ih (H, I), weight_hh (H, H), bias_ih and bias_hh (H,).
    Arguments as those of `RNN`.
    """

    kind = "RNNCell"
    activation: Any
    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        activation: Any = None,
        initial_state: str = "zeros",
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, bias=bias,
            nonlinearity=nonlinearity, device=device, dtype=dtype,
            activation=activation, initial_state=initial_state, blocks=blocks, norm=norm,
        )  # fmt: skip
        self._draw(seed)


class LSTMCell(RecurrentCell[tuple[Array, Array]]):
    """One step of the LSTM, as `torch.nn.LSTMCell`: `h, c = cell(x, (h, c))`.

    Equations and order of the gates as in `LSTM`. Parameters: weight_ih (4 H, I),
    weight_hh (4 H, H), bias_ih and bias_hh (4 H,).
    """

    kind = "LSTMCell"
    activation: Any
    recurrent_activation: Any
    peepholes: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        peepholes: bool = False,
        initial_state: str = "zeros",
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, bias=bias,
            activation=activation, recurrent_activation=recurrent_activation,
            peepholes=peepholes, initial_state=initial_state, blocks=blocks, norm=norm,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._draw(seed)


class GRUCell(RecurrentCell[Array]):
    """One step of the GRU, as `torch.nn.GRUCell`: `h = cell(x, h)`.

    Equations and order of the gates as in `GRU`. Parameters: weight_ih (3 H, I),
    weight_hh (3 H, H), bias_ih and bias_hh (3 H,).
    """

    kind = "GRUCell"
    activation: Any
    recurrent_activation: Any
    reset_after: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        initial_state: str = "zeros",
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, bias=bias,
            reset_after=reset_after, device=device, dtype=dtype,
            activation=activation, recurrent_activation=recurrent_activation,
            initial_state=initial_state, blocks=blocks, norm=norm,
        )  # fmt: skip
        self._draw(seed)
