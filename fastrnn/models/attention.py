"""Attention: for each query, a mean of an encoder's outputs, weighed by how well they match."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.module import Module
from fastrnn.models.tape import check_owner

#: How queries are matched, and the parameters of each, with their shapes by Q, M and A.
_SCORES = ("dot", "general", "additive")


@dataclass(frozen=True, eq=False)
class AttentionTape:
    """One forward pass of an attention layer, as its `backward` needs it.

    weights (S, B, T): how much each step of the memory counts for each query.
    """

    owner: Any = field(repr=False)
    weights: Array
    query: Array = field(repr=False)
    memory: Array = field(repr=False)
    hidden: Array | None = field(repr=False)
    values: Mapping[str, Array] = field(repr=False)


@dataclass(frozen=True, eq=False)
class AttentionGradients:
    """Gradients of a loss: of the queries, of the memory, of each parameter by name."""

    query: Array
    memory: Array
    parameters: Mapping[str, Array]


class Attention(Module):
    """Attention over the outputs of an encoder, for the outputs of a decoder.

        attention = fastrnn.Attention(128, 64)
        context, tape = attention.forward(query, memory, lengths)
        gradients = attention.backward(tape, dcontext)      # .query, .memory, .parameters

    Each step of the memory gets a score for a query; softmax over the steps of its sequence makes
    weights of them, and the context is the mean of the memory with these weights.

    query_size, memory_size: Q and M.
    score: "dot", q·m, where Q is M; "general", q·W m; both of Luong, Pham and Manning 2015,
        "Effective approaches to attention-based neural machine translation", section 3.1; or
        "additive", v·tanh(W q + U m), of Bahdanau, Cho and Bengio 2015, "Neural machine translation
        by jointly learning to align and translate", appendix A.1.2.
    attention_size: A, the values that additive scores are made of; M if None.

    Parameters: of "general" weight (Q, M); of "additive" weight_query (A, Q), weight_memory (A, M)
    and weight_score (A,); drawn from U(-1/√M, 1/√M). Arrays are NumPy's, on the CPU.
    """

    kind = "Attention"

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        score: str = "general",
        attention_size: int | None = None,
        *,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            query_size=query_size, memory_size=memory_size, score=score,
            attention_size=attention_size, device=device, dtype=dtype,
        )  # fmt: skip
        self._draw(seed)

    def _configure(
        self,
        *,
        query_size: int,
        memory_size: int,
        score: str,
        attention_size: int | None,
        device: str,
        dtype: Any,
    ) -> None:
        self.query_size = Q = check.size("query_size", query_size)
        self.memory_size = M = check.size("memory_size", memory_size)
        self.score = check.choice("score", score, _SCORES)
        if attention_size is not None:
            attention_size = check.size("attention_size", attention_size)
        self.attention_size = attention_size
        A = attention_size or M
        if score == "dot" and Q != M:
            raise ValueError(f"query_size is {Q} and memory_size {M}, wanted the same for 'dot'")
        self._set_up(device, dtype)
        shapes: dict[str, dict[str, tuple[int, ...]]] = {
            "dot": {},
            "general": {"weight": (Q, M)},
            "additive": {"weight_query": (A, Q), "weight_memory": (A, M), "weight_score": (A,)},
        }
        self._shapes = shapes[score]

    @property
    def _fan(self) -> int:
        return self.memory_size

    def __call__(self, query: Any, memory: Any, lengths: Any = None) -> Array:
        """The contexts of some queries; arguments as those of `forward`."""
        return self.forward(query, memory, lengths)[0]

    def forward(self, query: Any, memory: Any, lengths: Any = None) -> tuple[Array, AttentionTape]:
        """The contexts of some queries, and what `backward` needs.

        query (S, B, Q): one or more of each sequence, as the outputs of a decoder. memory
        (T, B, M): the outputs of an encoder. lengths (B,): steps of the memory that each sequence
        has, all if None; what is past them is not read.

        Returns the context (S, B, M), zeros for a sequence of no steps, and the tape. Raises
        TypeError or ValueError for wrong arguments.
        """
        q = check.floats("query", query, self.dtype, self._owner)
        m = check.floats("memory", memory, self.dtype, self._owner)
        for name, axes, array, width in (
            ("query", "(S, B, Q)", q, self.query_size),
            ("memory", "(T, B, M)", m, self.memory_size),
        ):
            if array.ndim != 3 or array.shape[-1] != width:
                raise ValueError(
                    f"{name} has shape {array.shape}, wanted {axes} with {axes[-2]}={width}"
                )
        T, B = m.shape[:2]
        if q.shape[1] != B:
            raise ValueError(f"query is of {q.shape[1]} sequences, memory of {B}")
        inside = np.ones((B, T), bool)
        steps = check.lengths(lengths, T, B)
        if steps is not None:
            inside = np.arange(T) < steps[:, None]
            m = np.where(inside.T[..., None], m, self.dtype.type(0))
        # Sequences first, so that products are of matrices.
        q, m = np.ascontiguousarray(q.swapaxes(0, 1)), np.ascontiguousarray(m.swapaxes(0, 1))
        values, hidden = self.parameters, None
        if self.score == "additive":
            hidden = (q @ values["weight_query"].T)[:, :, None]
            hidden = np.tanh(hidden + (m @ values["weight_memory"].T)[:, None])  # (B, S, T, A)
            scores = hidden @ values["weight_score"]
        else:
            left = q if self.score == "dot" else q @ values["weight"]
            scores = left @ m.swapaxes(1, 2)  # (B, S, T)
        scores = np.where(inside[:, None], scores, -np.inf)
        most = scores.max(-1, keepdims=True, initial=-np.inf)
        e = np.exp(scores - np.where(np.isfinite(most), most, 0)).astype(self.dtype)
        sums = e.sum(-1, keepdims=True)
        weights = e / np.where(sums > 0, sums, 1)
        context = np.ascontiguousarray((weights @ m).swapaxes(0, 1))
        shown = np.ascontiguousarray(weights.swapaxes(0, 1))
        return context, AttentionTape(self, shown, q, m, hidden, values)

    def backward(self, tape: AttentionTape, dcontext: Any) -> AttentionGradients:
        """Gradients of a loss of the contexts.

        tape: from this layer's `forward`. dcontext (S, B, M): gradient of the context. Raises
        TypeError or ValueError for wrong arguments.
        """
        check_owner(tape, AttentionTape, self, "another layer, {!r}")
        q, m, weights = tape.query, tape.memory, tape.weights.swapaxes(0, 1)
        shape = q.shape[1], q.shape[0], self.memory_size
        dc = check.shaped(
            "dcontext", dcontext, self.dtype, shape, "that of the context", self._owner
        ).swapaxes(0, 1)
        dm = weights.swapaxes(1, 2) @ dc
        dw = dc @ m.swapaxes(1, 2)  # (B, S, T)
        ds = weights * (dw - (weights * dw).sum(-1, keepdims=True))
        parameters: dict[str, Array] = {}
        if self.score == "additive":
            assert tape.hidden is not None
            parameters["weight_score"] = np.tensordot(ds, tape.hidden, 3)
            da = ds[..., None] * tape.values["weight_score"] * (1 - tape.hidden**2)
            of_q, of_m = da.sum(2), da.sum(1)  # (B, S, A), (B, T, A)
            dq = of_q @ tape.values["weight_query"]
            dm += of_m @ tape.values["weight_memory"]
            parameters["weight_query"] = np.tensordot(of_q, q, ((0, 1), (0, 1)))
            parameters["weight_memory"] = np.tensordot(of_m, m, ((0, 1), (0, 1)))
        elif self.score == "general":
            weight = tape.values["weight"]
            dleft = ds @ m
            dq = dleft @ weight.T
            dm += ds.swapaxes(1, 2) @ (q @ weight)
            parameters["weight"] = np.tensordot(q, dleft, ((0, 1), (0, 1)))
        else:
            dq = ds @ m
            dm += ds.swapaxes(1, 2) @ q
        ordered = {name: parameters[name] for name in self._shapes}
        return AttentionGradients(
            np.ascontiguousarray(dq.swapaxes(0, 1)),
            np.ascontiguousarray(dm.swapaxes(0, 1)),
            ordered,
        )
