"""The arguments of a call of several models: one for all of them, or one for each."""

from collections.abc import Sequence
from typing import Any

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.layer import Layer
from fastrnn.models.module import Version
from fastrnn.models.stack import Call, time_first
from fastrnn_kernels.rows import Rows


def calls_of(
    layer: Layer[Any],
    versions: Sequence[Version],
    x: Any,
    state: Any,
    lengths: Any,
    reset: Any,
    *,
    taping: bool,
    rather_cpu: bool = False,
    drawing: bool = False,
) -> tuple[list[Call], bool]:
    """Check the arguments of a pass: the calls of all models, and whether x is for all.

    layer: what they have in common; versions: the parameters of each. drawing: whether it is for
    training in which something is drawn.
    """
    M = len(versions)
    x = check.floats("input", x, layer.dtype, layer._owner)
    xs = _each("input", x, x.ndim == 4, M)
    checked = [layer._checked_input(one) for one in xs]
    _, T, B, batched = checked[0]
    shape, laid = xs[0].shape[:-1], (batched, layer.batch_first)
    steps = _each("lengths", lengths, _axes("lengths", lengths) == 2, M)
    steps = [layer._checked_lengths(one, T, B, batched) for one in steps]
    rows = [Rows.whole(T, B) if one is None else Rows(T, B, one) for one in steps]
    resets = _each("reset", reset, _axes("reset", reset) == len(shape) + 1, M)
    resets = [layer._checked_reset(one, shape, batched) for one in resets]
    given = layer._checked_states("state", state, B, batched, M)
    host = check.on_host(x)
    on_gpu = not host or not (given is None or all(map(check.on_host, given)))
    kernels, _, _ = layer._placed(T, B, taping, on_gpu, rather_cpu, versions[0])
    weights_of = layer._training_weights if drawing else layer._weights_for
    weights = [weights_of(version, kernels) for version in versions]
    every = [one for of_one in weights for one in of_one]
    told = f"{layer._owner}, M={M}, T={T}, B={B}"
    copied = x.nbytes if host or taping else 0
    kernels.check_forward(every, layer.directions, T, B, taping, copied, lambda: told)
    # The tape must not change when the caller fills the same array with the next input.
    xs = [kernels.take(time_first(one, *laid), "input", copy=taping) for one in xs]
    masks = [
        None if one is None else kernels.take(time_first(one, *laid), "reset", copy=True)
        for one in resets
    ]
    calls = [
        Call(
            kernels,
            weights[m],
            xs[m % len(xs)],
            layer._states(kernels, "state", of_model(given, m), B, version.values),
            rows[m % len(rows)],
            masks[m % len(masks)],
            *laid,
            host,
        )
        for m, version in enumerate(versions)
    ]
    return calls, x.ndim < 4


def of_model(states: list[Array] | None, m: int) -> list[Array] | None:
    """The states of a model among those of all."""
    return None if states is None else [state[m] for state in states]


def _axes(name: str, value: Any) -> int:
    """How many axes an array has, 0 where there is none."""
    return 0 if value is None else check.array(name, value).ndim


def _each(name: str, value: Any, separate: bool, models: int) -> list[Any]:
    """One for each model, or one for all."""
    if not separate:
        return [value]
    found = check.array(name, value)
    if len(found) != models:
        raise ValueError(
            f"{name} has shape {found.shape}, wanted one for each of {models} models, or without "
            "that axis one for all"
        )
    return list(found)
