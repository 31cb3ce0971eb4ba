"""torch's recurrent kernels, that raise where fastrnn's have to run, and modules beside torch's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import fastrnn.torch

# Tiny problems: threads of torch's own would only spin beside those of fastrnn.
torch.set_num_threads(1)

#: Each is called padded and, if of a layer, packed.
OWN_KERNELS = [
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell",
    "rnn_relu_cell",
]  # fmt: skip
_KERNELS = {name: getattr(torch._VF, name) for name in OWN_KERNELS}
_allowed: list[bool] = []


def guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put kernels in the place of torch's own that raise outside of `torch_itself`."""
    for name, kernel in _KERNELS.items():
        monkeypatch.setattr(torch._VF, name, _guarded(name, kernel))


@contextmanager
def unguarded() -> Iterator[None]:
    """With torch's own kernels back in their place, for what looks at them."""
    guarded = {name: getattr(torch._VF, name) for name in OWN_KERNELS}
    for name, kernel in _KERNELS.items():
        setattr(torch._VF, name, kernel)
    try:
        yield
    finally:
        for name, kernel in guarded.items():
            setattr(torch._VF, name, kernel)


def _guarded(name: str, kernel: Any) -> Any:
    def guarded(*arguments: Any, **options: Any) -> Any:
        if not _allowed:
            raise AssertionError(f"torch's own {name} was to run")
        return kernel(*arguments, **options)

    return guarded


@contextmanager
def torch_itself() -> Iterator[None]:
    """Where torch's own kernels may run: what is expected is computed by them."""
    _allowed.append(True)
    try:
        yield
    finally:
        _allowed.pop()


def pair(kind: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """A module of fastrnn.torch and torch's own with the same parameters."""
    ours = getattr(fastrnn.torch, kind)(*sizes, **options)
    theirs = getattr(torch.nn, kind)(*sizes, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs
