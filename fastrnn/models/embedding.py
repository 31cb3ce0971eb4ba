"""The embedding: a vector for each token of a vocabulary."""

from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.part import Part, Ragged
from fastrnn.models.tape import Gradients
from fastrnn_kernels.cpu.device import Stage


class Embedding(Part):
    """A vector for each number of a token, `torch.nn.Embedding`; the first module of a Sequential.

        model = fastrnn.Sequential(fastrnn.Embedding(1000, 64), fastrnn.GRU(64, 128))
        y, states = model(tokens)        # tokens (T, B), integers from 0 to 999

    num_embeddings, embedding_dim: V and D.
    padding_idx: the number of a token whose vector is zeros and has no gradient; none if None.
    Other arguments as those of `LSTM`.

    Parameters: weight (V, D), drawn from N(0, 1).
    """

    kind = "Embedding"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            num_embeddings=num_embeddings, embedding_dim=embedding_dim, padding_idx=padding_idx,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._draw(seed)
        if self.padding_idx is not None:
            weight = np.array(self.parameters["weight"])
            weight[self.padding_idx] = 0
            self.update({"weight": weight})

    def _configure(
        self,
        *,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        device: str,
        dtype: Any,
    ) -> None:
        self.num_embeddings = check.size("num_embeddings", num_embeddings)
        self.embedding_dim = check.size("embedding_dim", embedding_dim)
        if padding_idx is not None:
            padding_idx = check.size("padding_idx", padding_idx, 0, self.num_embeddings - 1)
        self.padding_idx = padding_idx
        self._set_up(device, dtype)
        self._shapes = {"weight": (self.num_embeddings, self.embedding_dim)}

    @property
    def _fan(self) -> int:
        return self.embedding_dim

    def _drawn(self, name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return generator.standard_normal(shape).astype(self.dtype)

    def __call__(self, tokens: Any) -> Array:
        """The vectors (..., D) of tokens (...), integers; TypeError or ValueError for others."""
        given = check.array("tokens", tokens, "an array of integers")
        if given.dtype.kind not in "iu":
            raise TypeError(f"tokens has dtype {given.dtype}, wanted integers: numbers of tokens")
        V = self.num_embeddings
        if given.size and not (given.min() >= 0 and given.max() < V):
            wrong = given[(given < 0) | (given >= V)][0]
            raise ValueError(f"tokens holds {wrong}, wanted 0 to num_embeddings - 1 = {V - 1}")
        found: Array = self.parameters["weight"][given]
        return found

    def _width_out(self, width: int | None) -> int | None:
        return self.embedding_dim

    def _run(self, x: Any, ragged: Ragged) -> Array:
        return self(x)

    def _run_taped(
        self, x: Any, ragged: Ragged, training: bool, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        return self(x), np.array(x).reshape(-1)

    def _back(self, kept: Any, dy: Array) -> Gradients[tuple[()]]:
        rows = dy.reshape(-1, self.embedding_dim)
        weight = np.zeros(self._shapes["weight"], self.dtype)
        if len(rows):
            # Rows of one token lie side by side in the order of time: their sums are the same at
            # each call.
            order = np.argsort(kept, kind="stable")
            tokens = kept[order]
            begins = np.flatnonzero(np.r_[True, tokens[1:] != tokens[:-1]])
            weight[tokens[begins]] = np.add.reduceat(rows[order], begins)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        return Gradients(None, (), {"weight": weight})  # type: ignore[arg-type]

    def tape_bytes(self, T: int, B: int) -> int:
        """Bytes that the tape of T steps of B sequences keeps: the tokens."""
        return T * B * 8

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        raise ValueError(
            f"{self._owner} takes numbers of tokens, and a stream takes floats: make a stream of "
            "model[1:], and give it the vectors that model[0](tokens) gives"
        )
