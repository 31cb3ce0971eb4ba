"""Cells against the reference and torch's cells: values, states, gradients, layouts."""

import numpy as np
import pytest
import torch

import reference
import torch_twin
from cases import (
    CELLS,
    CELLS_IN_TORCH,
    DTYPES,
    TOLERANCE,
    as_state,
    assert_close,
    make_cell,
    states,
)


def problem(cell, B, I, H, dtype, seed=0):
    """x, state and the gradient of the new state, random; B=None for a single row."""
    random = np.random.default_rng(seed)
    rows = () if B is None else (B,)
    parts = len(make_cell(cell, I, H)._cell.states)

    def normal(width):
        return random.standard_normal((*rows, width)).astype(dtype)

    state = tuple(normal(H) for _ in range(parts))
    return normal(I), state, tuple(normal(H) for _ in range(parts))


def step(cell, layer, x, state):
    """The reference's step with the weights of a cell."""
    kind, options = CELLS[cell]
    w = reference.weights_of(layer.state_dict())
    return reference.STEPS[kind](w, x, state, **options)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("B", [None, 1, 5, 13])
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 7), (1, 63), (5, 65)])
def test_values(cell, dtype, bias, B, I, H):
    layer = make_cell(cell, I, H, bias=bias, dtype=dtype)
    x, state, _ = problem(cell, B, I, H, dtype)
    found = states(layer(x, as_state(state)))
    wanted = step(cell, layer, x.astype(float), tuple(s.astype(float) for s in state))
    for mine, its in zip(found, wanted, strict=True):
        assert mine.dtype == np.dtype(dtype)
        assert_close(mine, its, TOLERANCE[dtype])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("B", [None, 5])
def test_no_state_means_zeros(cell, B):
    layer = make_cell(cell, 5, 7)
    x, state, _ = problem(cell, B, 5, 7, "float32")
    zeros = as_state([np.zeros_like(s) for s in state])
    for mine, its in zip(states(layer(x)), states(layer(x, zeros)), strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("B", [None, 1, 13])
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 7), (5, 65)])
def test_outputs_and_gradients_equal_torch(cell, dtype, bias, B, I, H):
    kind, options = CELLS[cell]
    layer = make_cell(cell, I, H, bias=bias, dtype=dtype)
    x, state, dstate = problem(cell, B, I, H, dtype)
    module = getattr(torch.nn, kind + "Cell")(
        I, H, bias=bias, dtype=getattr(torch, dtype), **options
    )
    torch_twin.load(module, layer.state_dict())
    given = torch_twin.tensors((x, *state))
    wanted = states(module(given[0], as_state(given[1:])))
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(
        wanted, [*given, *parameters.values()], [torch.tensor(d) for d in dstate]
    )

    new, tape = layer.forward(x, as_state(state))
    found = layer.backward(tape, as_state(dstate))
    assert list(found.parameters) == list(parameters)
    mine = [*states(new), found.x, *states(found.state), *found.parameters.values()]
    names = [*"hc"[: len(state)], "dx", *("dh", "dc")[: len(state)], *parameters]
    for name, a, b in zip(names, mine, [*wanted, *gradients], strict=True):
        assert a.dtype == np.dtype(dtype)
        assert_close(a, b.detach().numpy(), TOLERANCE[dtype], name)


@pytest.mark.smoke
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("B", [None, 3])
def test_gradients_are_finite_differences(cell, B):
    layer = make_cell(cell, 2, 4, dtype="float64")
    x, state, dstate = problem(cell, B, 2, 4, "float64", seed=2)
    kind, options = CELLS[cell]
    parameters = layer.state_dict()

    start = {f"state {k}": part for k, part in enumerate(state)}

    def loss(given):
        rows = [given["x"], *(given[name] for name in start)]
        if B is None:
            rows = [array[..., None, :] for array in rows]
        new, _ = reference.STEPS[kind](reference.weights_of(given), rows[0], rows[1:], **options)
        return reference.inner(new, [d.reshape(-1, 4) for d in dstate])

    if cell == "RNN-relu":  # keep away from the kink: no pre-activation within 1e-3 of it
        w = reference.weights_of(parameters)
        raised = w | {"bias_ih": w["bias_ih"] + 1e-3}
        lowered = w | {"bias_ih": w["bias_ih"] - 1e-3}
        (above,), _ = reference.rnn_step(raised, x, state, nonlinearity="relu")
        (below,), _ = reference.rnn_step(lowered, x, state, nonlinearity="relu")
        assert np.array_equal(above > 0, below > 0), "take another seed"

    _, tape = layer.forward(x, as_state(state))
    found = layer.backward(tape, as_state(dstate))
    # Central differences err by some 1e-10 (see reference.STEP) times a dozen terms.
    gradients = dict(zip(start, states(found.state), strict=True)) | {"x": found.x}
    gradients |= found.parameters
    wanted = reference.finite_differences(loss, {"x": x} | start | parameters)
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, 1e-8, name)


@pytest.mark.parametrize("cell", CELLS)
def test_forward_gives_what_the_call_gives_and_the_tape_serves_twice(cell):
    layer = make_cell(cell, 5, 65)
    x, state, dstate = problem(cell, 5, 5, 65, "float32")
    new, tape = layer.forward(x, as_state(state))
    for mine, its in zip(states(new), states(layer(x, as_state(state))), strict=True):
        assert np.array_equal(mine, its)
    first = layer.backward(tape, as_state(dstate))
    second = layer.backward(tape, as_state(dstate))
    assert np.array_equal(first.x, second.x)
    for name in first.parameters:
        assert np.array_equal(first.parameters[name], second.parameters[name])


@pytest.mark.parametrize("cell", CELLS)
def test_no_rows(cell):
    layer = make_cell(cell, 5, 7)
    new, tape = layer.forward(np.zeros((0, 5), np.float32))
    gradients = layer.backward(tape, new)
    assert [s.shape for s in states(new)] == [(0, 7)] * len(states(new))
    assert gradients.x.shape == (0, 5)
    for name, array in layer.state_dict().items():
        assert np.array_equal(gradients.parameters[name], np.zeros_like(array)), name


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_row(cell, value):
    layer = make_cell(cell, 5, 65)
    x, state, _ = problem(cell, 9, 5, 65, "float32")
    clean = states(layer(x, as_state(state)))
    x[4, 2] = value
    others = np.arange(9) != 4
    for mine, its in zip(states(layer(x, as_state(state))), clean, strict=True):
        assert np.array_equal(mine[others], its[others])
        assert np.isnan(value) == np.isnan(mine[4]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_any_layout(cell):
    layer = make_cell(cell, 5, 7)
    x, state, dstate = problem(cell, 4, 5, 7, "float32")
    wanted, wanted_tape = layer.forward(x, as_state(state))
    wanted_gradients = layer.backward(wanted_tape, as_state(dstate))
    odd = [np.asfortranarray(a)[::-1][::-1] for a in (x, *state, *dstate)]
    before = [a.copy() for a in odd]
    for a in odd:
        a.flags.writeable = False
    parts = len(state)
    new, tape = layer.forward(odd[0], as_state(odd[1 : 1 + parts]))
    gradients = layer.backward(tape, as_state(odd[1 + parts :]))
    for mine, its in zip(states(new), states(wanted), strict=True):
        assert np.array_equal(mine, its)
    assert np.array_equal(gradients.x, wanted_gradients.x)
    for mine, its in zip(odd, before, strict=True):
        assert np.array_equal(mine, its)
