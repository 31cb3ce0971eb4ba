"""What RNN, LSTM and GRU share: a stack of layers over whole sequences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, Shape, State
from fastrnn.device import kernels_of
from fastrnn.models.module import Version
from fastrnn.models.stack import Call, draw_masks, run_backward, run_forward, time_first
from fastrnn.models.stacked import Stacked
from fastrnn.models.streamable import Streamable
from fastrnn.models.tape import Gradients, Tape, check_owner
from fastrnn.streams.source import LayerState
from fastrnn_kernels.cpu.device import Stage, checkpoint_bytes, stage_of
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.draws import DROPPED, ZONEOUT
from fastrnn_kernels.gradients import NO_CLIP, Clip
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.rows import Rows


def checked_clip(kernels: Kernels, clip_value: Any, clip_norm: Any) -> Clip:
    """How a backward pass clips between steps, which the GPU's does not."""
    clip = Clip(check.clip("clip_value", clip_value), check.clip("clip_norm", clip_norm))
    if clip != NO_CLIP and not kernels.ON_HOST:
        raise ValueError("clip_value and clip_norm are for tapes of the CPU, this is the GPU's")
    return clip


class Layer(Stacked, Streamable[State]):
    """A stack of recurrent layers of one kind. Use RNN, LSTM or GRU.

    D is 2 if bidirectional, else 1; P, the width of h, is H, or proj_size where that is
    set. Without the batch axis (unbatched input) B falls out of every shape.
    """

    def __call__(
        self, x: Any, state: State | None = None, lengths: Any = None, reset: Any = None
    ) -> tuple[Array, State]:
        """Run over a whole sequence for inference: no dropout, zoneout as expected, no tape.

        x (T, B, I), or (B, T, I) with batch_first, or (T, I): the input, in the layer's
            float type, any strides. NaN and infinity pass through.
        state: h_0 (num_layers * D, B, P); for the LSTM (h_0, c_0), c_0 (num_layers * D, B, H).
            If None, zeros, or with initial_state="learned" the parameters.
        lengths (B,): steps of each sequence, 0 to T, in any order; all T if None. What is
            past the end is not read, and comes out 0.
        reset (T, B), or (B, T) with batch_first, or (T,): where true, a new sequence begins
            at that step: the row goes back to where it began before it, and the reverse
            direction, which comes from the other side, after it.

        Returns y (T, B, D * P), or as x is laid out, and the state at each sequence's own
        end, laid out like `state`. Raises TypeError or ValueError for wrong arguments.
        """
        call = self._call(x, state, lengths, reset, taping=False)
        y, final, _ = run_forward(self._stack, call, taping=False)
        return call.as_given(y), call.joined(final)

    def forward(
        self,
        x: Any,
        state: State | None = None,
        lengths: Any = None,
        reset: Any = None,
        training: bool = True,
        rng: np.random.Generator | None = None,
        return_gates: bool = False,
        checkpoint: int | str | None = None,
    ) -> tuple[Array, State, Tape]:
        """Run over a whole sequence and keep what `backward` needs.

        Arguments as those of a plain call, and

        training: False turns dropout of all kinds off, and has of zoneout what is expected;
            nothing else. With zoneout, or dropout inside of layers, "auto" is the CPU.
        rng: draws the dropout masks, and the key from which all others follow: the same for any
            number of threads, lengths of other rows, and with a checkpoint. One made from the
            layer's seed if None.
        return_gates: put the values of all gates and cell states, (T, B, H) each, into
            `tape.gates[layer * D + direction][gate]`; 0 where a sequence has ended.
        checkpoint: for long sequences. The tape then keeps the states of every so many steps, and
            `backward` computes what lies between them again: it takes about a third longer, and
            memory for that many steps at a time. Gradients are the same, bit for bit. "auto" is
            the square root of T, or more where sequences are few; None keeps all steps.

        Returns y, the final state and the tape.
        """
        self._check_training(training, rng)
        check.flag("return_gates", return_gates)
        drawing = training and self._rates.drawing
        call = self._call(
            x, state, lengths, reset, taping=True, rather_cpu=checkpoint is not None or drawing,
            drawing=drawing,
        )  # fmt: skip
        every = self._segments(checkpoint, call)
        if every is not None and return_gates:
            raise ValueError("return_gates is True: with a checkpoint the gates are not kept")
        masks = drawn = None
        dropout = self.dropout if self._drops(training) else 0.0
        if dropout > 0 or drawing:
            generator = self._dropout_generator() if rng is None else rng
            drawn = self._rates.drawn(generator) if drawing else None
            masks = draw_masks(self._stack, call, dropout, generator, drawn)
        if drawn is not None:
            call.weights = drawn.weights(call.weights)
        y, final, tapes = run_forward(
            self._stack, call, masks, taping=True, every=every, drawn=drawn
        )
        given = call.as_given(y)
        gates = [self._given_gates(one, call) for one in tapes] if return_gates else None
        tape = Tape(
            self,
            given.shape,
            call.batched,
            call.batch_first,
            tapes,
            masks,
            call.host,
            call.kernels.NAME,
            self._learned and state is None,
            gates,
            drawn,
        )
        return given, call.joined(final), tape

    def _check_training(self, training: Any, rng: Any) -> None:
        """Check what only a forward pass with a tape takes."""
        self._refuse_tape()
        check.flag("training", training)
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng is {rng!r}, wanted a numpy.random.Generator")

    def _segments(self, checkpoint: Any, call: Call) -> int | None:
        """The steps between the checkpoints of a call."""
        every = check.checkpoint(checkpoint, call.rows.T, call.rows.B)
        if every is not None and not call.kernels.ON_HOST:
            raise ValueError(
                f"checkpoint is {checkpoint!r}, and this call is the GPU's: wanted None"
            )
        return every

    def _drops(self, training: bool) -> bool:
        """Whether there is dropout between layers."""
        return training and self.dropout > 0 and self.num_layers > 1

    def backward(
        self,
        tape: Tape,
        dy: Any,
        dstate: State | None = None,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> Gradients[State]:
        """Gradients of a loss by backpropagation through time.

        tape: from this layer's `forward`; it may be used again.
        dy: gradient of y, in y's shape; None for zeros. What stands at padding is ignored.
        dstate: gradient of the final state, laid out like it; zeros if None.
        clip_value, clip_norm: clip the gradient that each step gives to the state before it, where
            else it may explode over a long sequence: its values to at most `clip_value` in
            magnitude, then the norm of each row of a state to at most `clip_norm`. Each layer,
            direction and state is clipped by itself, the initial state too. On the CPU alone.

        Returns the gradients of x (0 at padding), of the initial state, and of each
        parameter by name. Raises TypeError or ValueError for wrong arguments.
        """
        check_owner(tape, Tape, self, "another layer, {!r}")
        kernels = kernels_of(tape.device)
        clip = checked_clip(kernels, clip_value, clip_norm)
        if dy is None:
            dy = kernels.xp.zeros(tape.shape, self.dtype)
        dy = check.shaped("dy", dy, self.dtype, tape.shape, "that of y", self._owner)
        rows = tape.passes[0].rows
        given = self._checked_states("dstate", dstate, rows.B, tape.batched)
        kernels.check_backward(
            tape.passes,
            self.directions,
            lambda: f"backward of {self._owner}, T={rows.T}, B={rows.B}",
        )
        d_final = self._states(kernels, "dstate", given, rows.B)
        dy = time_first(dy, tape.batched, tape.batch_first)
        call = Call(kernels, (), dy, d_final, rows, None, tape.batched, tape.batch_first, tape.host)
        dx, d_start, gradients = run_backward(self._stack, tape.passes, tape.masks, call, clip=clip)
        if tape.drawn is not None:
            tape.drawn.mask_gradients(gradients, kernels)
        if kernels.ON_HOST:
            rows.clear_padding(dx)
        parameters = self._of_parameters(kernels, gradients, d_start, tape)
        return Gradients(call.as_given(dx), call.joined(d_start), parameters)

    def _of_parameters(
        self,
        kernels: Kernels,
        gradients: Sequence[PassGradients],
        d_start: Sequence[Array],
        tape: Tape,
    ) -> dict[str, Array]:
        """The gradients of the parameters by name, of those of passes and of initial states."""
        parameters: dict[str, Array] = {}
        suffixes = self._every_suffix
        for suffix, of in zip(suffixes, gradients, strict=True):
            parameters |= self._by_name(kernels, of, suffix, tape.host)
        if self._learned:
            parameters |= self._start_gradients(d_start, suffixes, tape)
            parameters = {name: parameters[name] for name in self._shapes}
        return parameters

    def tape_bytes(self, T: int, B: int, checkpoint: int | str | None = None) -> int:
        """Bytes that the tape of T steps of B sequences keeps from `forward` to `backward`.

        checkpoint: as that of `forward`; `backward` then takes, for a layer at a time, about as
        much again as a tape of that many steps. Dropout counts as in training; resets, a byte a
        step of a sequence, do not.
        """
        return self._tape_bytes(self._version, T, B, checkpoint)

    def _tape_bytes(self, version: Version, T: int, B: int, checkpoint: int | str | None) -> int:
        T, B = check.size("T", T, least=0), check.size("B", B, least=0)
        every, D = check.checkpoint(checkpoint, T, B), self.directions
        weights: tuple[Any, ...] = self._training_weights(version, version.kernels)
        if every is None:
            passes = sum(version.kernels.tape_bytes(one, T, B) for one in weights)
        else:
            passes = sum(checkpoint_bytes(one, T, B, every) for one in weights)
        # The inputs of layers, and of all but the first the masks.
        above = (self.num_layers - 1) * (2 if self.dropout > 0 else 1) * D * self.state_size
        return passes + T * B * (self.input_size + above) * self.dtype.itemsize

    def scratch_bytes(self, T: int, B: int) -> int:
        """Bytes that a call on T steps of B sequences takes beside its results and the tape.

        That is the most of any layer of the stack, with the number of threads as it is now.
        It does not grow with T beyond the block of time steps that is computed at a time.
        """
        T, B = check.size("T", T, least=0), check.size("B", B, least=0)
        D, version = self.directions, self._version
        each = (version.kernels.scratch_bytes(one, T, B, D) for one in version.weights)
        return D * int(max(each))

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        return [stage_of(one, batch_size, storage) for one in self._layers()]

    def _layers(self) -> list[Any]:
        if self.bidirectional:
            raise ValueError(
                f"{self._owner} is bidirectional and cannot stream: its reverse direction "
                "begins at the end of a sequence"
            )
        return list(self._version.weights)

    def _join_layers(self, layers: Iterator[LayerState]) -> State:
        parts = [next(layers) for _ in range(self.num_layers)]
        h = np.stack([h for h, _ in parts])
        rest = np.stack([rest for _, rest in parts], axis=1)
        return (h, *rest) if len(rest) else h  # type: ignore[return-value]

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        given = self._checked_states(name, state, batch_size, True)
        version = self._version
        h, *rest = self._states(version.kernels, name, given, batch_size, version.values)
        none = np.empty((0, batch_size, self.hidden_size), self.dtype)
        return [
            (h[k], np.stack([one[k] for one in rest]) if rest else none)
            for k in range(self.num_layers)
        ]

    def _checked_input(self, x: Any) -> tuple[Array, int, int, bool]:
        """The input as it is laid out, T, B, and whether it has an axis of B."""
        if type(x) is not np.ndarray or x.dtype != self.dtype:  # nearly every call's is
            x = check.floats("input", x, self.dtype, self._owner)
        axes = "(B, T, I)" if self.batch_first else "(T, B, I)"
        if x.ndim not in (2, 3):
            raise ValueError(f"input has shape {x.shape}, wanted {axes} or, unbatched, (T, I)")
        batched = x.ndim == 3
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input {axes if batched else '(T, I)'} has I={x.shape[-1]}, "
                f"this layer takes {self.input_size}"
            )
        if not batched:
            return x, len(x), 1, False
        T, B = x.shape[1::-1] if self.batch_first else x.shape[:2]
        return x, T, B, True

    def _call(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        reset: Any,
        *,
        taping: bool,
        rather_cpu: bool = False,
        drawing: bool = False,
    ) -> Call:
        """Check the arguments of a pass; arrays come out time first and with a batch axis.

        drawing: whether it is for training in which something is drawn.
        """
        x, T, B, batched = self._checked_input(x)
        steps = self._checked_lengths(lengths, T, B, batched)
        mask = self._checked_reset(reset, x.shape[:-1], batched)
        given = self._checked_states("state", state, B, batched)
        host = check.on_host(x)
        on_gpu = not host or not (given is None or all(map(check.on_host, given)))
        kernels, weights, version = self._placed(T, B, taping, on_gpu, rather_cpu)
        if drawing:
            weights = self._training_weights(version, kernels)
        copied = x.nbytes if host or taping else 0
        sizes = self.directions, T, B, taping, copied
        kernels.check_forward(weights, *sizes, lambda: f"{self._owner}, T={T}, B={B}")
        # The tape must not change when the caller fills the same array with the next input.
        x = kernels.take(time_first(x, batched, self.batch_first), "input", copy=taping)
        if mask is not None:
            mask = time_first(mask, batched, self.batch_first)
            mask = kernels.take(mask, "reset", copy=True)
        rows = Rows.whole(T, B) if steps is None else Rows(T, B, steps)
        states = self._states(kernels, "state", given, B, version.values)
        return Call(kernels, weights, x, states, rows, mask, batched, self.batch_first, host)

    @staticmethod
    def _checked_lengths(lengths: Any, T: int, B: int, batched: bool) -> Any:
        """The (B,) lengths of the sequences, or None."""
        if lengths is None:
            return None
        one = lengths if batched else check.array("lengths", lengths).reshape(-1)
        return check.lengths(one, T, B)

    def _checked_reset(self, reset: Any, shape: Shape, batched: bool) -> Array | None:
        """The mask of sequences' boundaries, laid out as the input is, or None."""
        if reset is None:
            return None
        axes = ("(B, T)" if self.batch_first else "(T, B)") if batched else "(T,)"
        return check.reset(reset, shape, axes)

    def _left_of_candidate(self, one: Any, gate: str, value: Array, xp: Any) -> Array:
        """What dropout has left of a gate, in a pass."""
        drawn = DROPPED.format(gate)
        dropped = drawn in one.weights.cell.drawn
        return value * self._saved(one, drawn, xp) if dropped else value

    def _left_by_zoneout(self, one: Any, state: str, new: Array, old: Array, xp: Any) -> Array:
        """A state after zoneout, if a pass has any."""
        cell, name = one.weights.cell, ZONEOUT.format(state)
        if name in cell.drawn:
            found: Array = xp.where(self._saved(one, name, xp) > 0, old, new)
            return found
        if name in cell.per_unit:
            rate = dict(self._rates.zoneout)[state]
            return rate * old + (1 - rate) * new
        return new

    def _given_gates(self, one: Any, call: Call) -> dict[str, Array]:
        """The values of the gates of one pass, by name, as the user's input is laid out."""
        give = call.kernels.give
        return {
            name: give(values if call.batched else values[:, 0], call.host)
            for name, values in self._gates(one, call.kernels.xp).items()
        }
