"""Layers and cells beside Keras's own, on the backend that KERAS_BACKEND names.

`test_backends.py` runs this file once for each backend. Where fastrnn's classes are called,
Keras's own recurrent code raises: only what stands in FALLBACKS may reach it.
"""

import contextlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import fastrnn
import fastrnn.keras
from fastrnn.keras import fallbacks, kept
from fastrnn_kernels.equations.variants import rnn
from keras_tools import (
    BACKEND,
    TRAINS,
    arrays,
    assert_close,
    gradients,
    only_kernels,
    outputs,
    tensor,
)

#: As the issue asks for; sums of some ten products, each off by half a unit in the last place.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
B, T, I, H = 5, 6, 3, 7
KINDS = {
    "SimpleRNN": ("SimpleRNN", {}),
    "SimpleRNN of relu": ("SimpleRNN", {"activation": "relu"}),
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
}
# Rows that run in whole, to the left, to the right, in pieces, and not at all.
MASK = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0], [0] * 6], bool
)
EVERYTHING = {"return_sequences": True, "return_state": True}
OPTIONS = {
    "last output": ({}, None, False),
    "states": (EVERYTHING, None, True),
    "backwards": ({"return_sequences": True, "go_backwards": True}, None, False),
    "masked": (EVERYTHING, MASK, True),
    "masked, last output": ({"return_state": True}, MASK, True),
    "masked, backwards, zeros": (
        EVERYTHING | {"go_backwards": True, "zero_output_for_mask": True}, MASK, True,
    ),
    "masked, last output or zero": ({"zero_output_for_mask": True}, MASK, False),
    "unrolled, masked": (EVERYTHING | {"unroll": True, "zero_output_for_mask": True}, MASK, True),
    "no bias": ({"use_bias": False, "return_state": True}, None, False),
}  # fmt: skip
#: JAX and TensorFlow compile each case, and what they add to NumPy's code is the same for all.
COMPILES = BACKEND not in ("torch", "numpy")
KIND = pytest.mark.parametrize("kind", ["LSTM"] if COMPILES else KINDS)
GRID = [
    (kind, option)
    for k, option in enumerate(OPTIONS)
    for kind in KINDS
    if not COMPILES or kind == list(KINDS)[k % len(KINDS)]
]


def pair(kind, dtype="float32", **options):
    """Keras's layer and fastrnn's, with the same weights, and an input for them."""
    name, extra = KINDS[kind]
    options = {"dtype": dtype, **extra, **options}
    own, ours = (getattr(module, name)(H, **options) for module in (layers, fastrnn.keras))
    rng = np.random.default_rng(3)
    for layer in (own, ours):
        layer.build((B, T, I))
    weights = [rng.uniform(-0.6, 0.6, weight.shape).astype(dtype) for weight in own.get_weights()]
    for layer in (own, ours):
        layer.set_weights(weights)
    return own, ours, rng.standard_normal((B, T, I)).astype(dtype)


def some_states(layer, dtype):
    rng = np.random.default_rng(4)
    return [rng.uniform(-1, 1, (B, H)).astype(dtype) for _ in layer.state_size]


def check(own, ours, *arguments, tolerance, loop=True, **how):
    for function in (outputs, gradients) if TRAINS else (outputs,):
        wanted = function(own, *arguments, **how)
        with only_kernels(loop):
            found = function(ours, *arguments, **how)
        assert_close(found, wanted, tolerance)


@pytest.mark.parametrize(("kind", "option"), GRID)
def test_outputs_and_gradients(kind, option):
    options, mask, with_states = OPTIONS[option]
    own, ours, x = pair(kind, "float64", **options)
    states = some_states(own, "float64") if with_states else None
    check(own, ours, x, mask, states, tolerance=TOLERANCE["float64"])


@KIND
def test_float32(kind):
    own, ours, x = pair(kind, **EVERYTHING)
    check(own, ours, x, MASK, some_states(own, "float32"), tolerance=TOLERANCE["float32"])


def learned(kind, **options):
    """A layer whose initial state is learned, no weight of it zero, and an input."""
    name, extra = KINDS[kind]
    layer = getattr(fastrnn.keras, name)(H, initial_state="learned", **extra, **options)
    rng = np.random.default_rng(3)
    layer.build((B, T, I))
    assert not any(np.any(arrays(one)) for one in layer._starts)
    layer.set_weights([rng.uniform(-0.6, 0.6, one.shape) for one in layer.get_weights()])
    return layer, rng.standard_normal((B, T, I)).astype("float32")


@KIND
def test_a_learned_initial_state(kind, tmp_path):
    layer, x = learned(kind, **EVERYTHING)
    own, _, _ = pair(kind, **EVERYTHING)
    starts = arrays(layer._starts)
    named = {one.name: one for one in layer.weights}
    assert [one for one in named if one.startswith("initial")] == [
        f"initial_{name}" for name in "hc"[: len(starts)]
    ]
    own.set_weights(arrays(layer.cell.weights))
    states = [np.tile(one, (B, 1)) for one in starts]
    wanted = outputs(own, x, MASK, states)
    with only_kernels():
        assert_close(outputs(layer, x, MASK), wanted, TOLERANCE["float32"])
        given = some_states(layer, "float32")  # one that is given goes before it
        assert_close(outputs(layer, x, MASK, given), outputs(layer, x, MASK, given), 0)
    again = type(layer).from_config(layer.get_config())
    assert again.initial_state == "learned"
    if TRAINS:
        wanted = gradients(own, x, MASK, states)
        found = gradients(layer, x, MASK)
        of_states = [one.sum(0) for one in wanted[1 : 1 + len(starts)]]
        rest = found[1:]
        mine = {v.path: g for v, g in zip(layer.trainable_variables, rest, strict=True)}
        for variable, expected in zip(layer._starts, of_states, strict=True):
            assert_close([mine[variable.path]], [expected], TOLERANCE["float32"])
    model = keras.Sequential([keras.Input((T, I)), layers.Bidirectional(layer)])
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = fastrnn.load(path)
    assert loaded.initial_state == "learned"
    y = arrays(model(tensor(x)))[0]
    np.testing.assert_allclose(loaded(x)[0], y, rtol=1e-5, atol=1e-6)


def test_a_learned_initial_state_is_refused_where_it_cannot_be():
    with pytest.raises(ValueError, match="'learned' and stateful True"):
        fastrnn.keras.GRU(H, initial_state="learned", stateful=True)
    with pytest.raises(ValueError, match="initial_state is 'ones', wanted one of"):
        fastrnn.keras.GRU(H, initial_state="ones")
    with pytest.raises(ValueError, match="the cell a StackedRNNCells"):
        fastrnn.keras.RNN([layers.GRUCell(H)], initial_state="learned")
    layer, _ = learned("LSTM")
    with pytest.raises(ValueError, match="learned initial state, which Keras's own has not"):
        fastrnn.keras.restore(layer)
    assert type(layer) is fastrnn.keras.LSTM


def test_activations_are_keras_s():
    """All that keras.activations has of the kernels', as Python runs them."""
    x = np.r_[np.linspace(-7, 7, 141), -1e-3, 1e-3]
    assert len(fallbacks.ACTIVATIONS) >= 19
    for theirs, ours in fallbacks.ACTIVATIONS:
        forward = rnn(ours, None).forward.py_func
        found = [forward((value,), (value,))[0][0] for value in x]
        assert_close([np.asarray(found)], arrays(theirs(tensor(x))), 1e-6)


def test_activations_of_choice():
    """Functions that are no single operations of kernels."""
    chosen = {"activation": "gelu", "recurrent_activation": "hard_sigmoid"}
    own, ours, x = pair("LSTM", "float64", **EVERYTHING, **chosen)
    # Keras has constants of these functions in float32.
    check(own, ours, x, MASK, some_states(own, "float64"), tolerance=1e-6)


@KIND
def test_dropout_draws_the_same_mask(kind):
    own, ours, x = pair(kind, dropout=0.4, seed=5)
    wanted = outputs(own, x, training=True)
    with only_kernels():
        found = outputs(ours, x, training=True)
        without = outputs(ours, x)
    assert_close(found, wanted, TOLERANCE["float32"])
    assert np.abs(found[0] - without[0]).max() > 0.01


@KIND
def test_recurrent_dropout_is_nothing_in_inference(kind):
    own, ours, x = pair(kind, recurrent_dropout=0.4, dropout=0.3)
    check(own, ours, x, tolerance=TOLERANCE["float32"])


@pytest.mark.parametrize("kind", ["LSTM"] if COMPILES else ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent_dropout_trains_on_the_kernels(kind):
    """As in Keras with the same mask for each gate, of which fastrnn's layers take one."""
    own, ours, x = pair(kind, "float64", **EVERYTHING, recurrent_dropout=0.4, dropout=0.3)
    rng = np.random.default_rng(6)
    of_x, of_h = (tensor((rng.random((B, n)) < 0.6) / 0.6) for n in (I, H))
    gates = {"SimpleRNN": 0, "LSTM": 4, "GRU": 3}[kind]
    for layer in (own, ours):
        for name, mask in (("get_dropout_mask", of_x), ("get_recurrent_dropout_mask", of_h)):
            drawn = [mask] * gates if gates else mask
            object.__setattr__(layer.cell, name, lambda _, drawn=drawn: drawn)
    check(own, ours, x, MASK, training=True, tolerance=TOLERANCE["float64"])


@pytest.mark.parametrize("kind", ["LSTM"])
def test_recurrent_dropout_draws_by_the_seed(kind):
    found = []
    for seed in (1, 1, 2):
        _, ours, x = pair(kind, recurrent_dropout=0.4, seed=seed)
        with only_kernels():
            found.append(outputs(ours, x, training=True)[0])
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.001


@KIND
def test_state_is_carried_from_call_to_call(kind):
    own, ours, x = pair(kind, stateful=True)
    first = outputs(own, x)
    wanted = outputs(own, x)
    with only_kernels():
        outputs(ours, x)
        found = outputs(ours, x)
        ours.reset_state()
        again = outputs(ours, x)
    assert_close(found + again, wanted + first, TOLERANCE["float32"])


def test_weights_that_change_are_seen():
    own, ours, x = pair("LSTM")
    for scale in (1.0, -0.5):
        for layer in (own, ours):
            layer.cell.kernel.assign(scale * layer.cell.kernel)
            layer.cell.bias.assign(layer.cell.bias + 0.1)
        with only_kernels():
            found = outputs(ours, x)
        assert_close(found, outputs(own, x), TOLERANCE["float32"])


@KIND
@pytest.mark.parametrize("training", [False, True])
def test_a_cell_in_keras_s_own_loop(kind, training):
    name, extra = KINDS[kind]
    options = extra | ({"dropout": 0.4} if training else {})
    if name == "SimpleRNN":  # others have masks for each gate there, and one for all here
        options |= {"recurrent_dropout": 0.3} if training else {}
    pairs = []
    for module in (layers, fastrnn.keras):
        cell = getattr(module, name + "Cell")(H, seed=5, **options)
        pairs.append(layers.RNN(cell, **EVERYTHING))
        pairs[-1].build((B, T, I))
    own, ours = pairs
    ours.set_weights(own.get_weights())
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype("float32")
    if training:  # gradients would be of other masks
        wanted = outputs(own, x, training=True)
        with only_kernels(loop=False):
            assert_close(outputs(ours, x, training=True), wanted, TOLERANCE["float32"])
    else:
        check(own, ours, x, MASK, tolerance=TOLERANCE["float32"], loop=False)


@pytest.mark.parametrize("module", [layers, fastrnn.keras])
@pytest.mark.parametrize("name", ["SimpleRNNCell", "LSTMCell", "GRUCell"])
def test_rnn_runs_the_sequence_of_a_cell(module, name):
    own = layers.RNN(getattr(layers, name)(H), **EVERYTHING)
    ours = fastrnn.keras.RNN(getattr(module, name)(H), **EVERYTHING)
    for layer in (own, ours):
        layer.build((B, T, I))
    ours.set_weights(own.get_weights())
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype("float32")
    with only_kernels():
        found = outputs(ours, x, MASK)
    assert_close(found, outputs(own, x, MASK), TOLERANCE["float32"])


class OtherCell(layers.GRUCell):
    def call(self, inputs, states, training=False):
        h, states = super().call(inputs, states, training=training)
        return 2 * h, states


#: For each fallback that a CPU can reach: the layers and how they are called.
FALLEN = {
    "activation": ("LSTM", {"activation": "celu"}, {}),
    "dropout_per_gate": (
        "GRU", {"implementation": 1, "dropout": 0.3, "seed": 1, "use_cudnn": False},
        {"training": True},
    ),
    "whole_dropout": ("LSTM", {"recurrent_dropout": 1.0, "seed": 1}, {"training": True}),
    "dtype": ("GRU", {"dtype": "mixed_float16"}, {}),
    "cell": ("RNN", {}, {}),
    "mask": ("SimpleRNN", {}, {"mask": MASK[:, :, None]}),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLEN)
def test_fallbacks_say_so_once_and_give_keras_s_numbers(name):
    kind, options, how = FALLEN[name]
    units = OtherCell(H) if kind == "RNN" else H
    own, ours = (getattr(module, kind)(units, **options) for module in (layers, fastrnn.keras))
    for layer in (own, ours):
        layer.build((B, T, I))
    ours.set_weights(own.get_weights())
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype(own.compute_dtype)
    wanted = outputs(own, x, **how)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = outputs(ours, x, **how)
        outputs(ours, x, **how)
    said = [one for one in said if "by Keras's own step" in str(one.message)]
    assert len(said) == 1
    assert fastrnn.keras.FALLBACKS[name] in str(said[0].message)
    assert Path(said[0].filename).name == "keras_tools.py"  # where the layer is called
    assert_close(found, wanted, 0)


def test_cudnn_is_keras_s():
    own, ours, x = pair("LSTM", use_cudnn=True)
    refused = contextlib.nullcontext()
    try:
        outputs(own, x)
    except ValueError:  # not on all backends
        refused = pytest.raises(ValueError, match="cuDNN is not supported")
    with pytest.warns(UserWarning, match=r"asks for cuDNN"), refused:
        outputs(ours, x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="no tape of a program's waits elsewhere")
def test_a_tape_that_is_gone_is_made_again(monkeypatch):
    own, ours, x = pair("GRU", **EVERYTHING)
    wanted, before = gradients(own, x, MASK), kept.waiting.bytes
    monkeypatch.setattr(kept, "LIMIT", 0)
    assert_close(gradients(ours, x, MASK), wanted, TOLERANCE["float32"])
    assert kept.waiting.bytes <= before


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's transformations")
def test_jax_s_transformations():
    import jax

    own, ours, x = pair("LSTM")
    before = kept.waiting.bytes
    trainable = [variable.value for variable in own.trainable_variables]
    others = [variable.value for variable in own.non_trainable_variables]

    def loss(layer, weights, one):
        y, _ = layer.stateless_call(weights, others, one)
        return (y**2).sum()

    batches = np.stack([x, 2 * x, -x])
    results = []
    for layer in (own, ours):
        of = jax.vmap(jax.grad(lambda w, one, layer=layer: loss(layer, w, one)), (None, 0))
        results.append(arrays(jax.jit(of)(trainable, batches)))
        _, back = jax.vjp(lambda w, layer=layer: loss(layer, w, x), trainable)
        results[-1] += arrays(back(np.float32(1))) + arrays(back(np.float32(2)))  # twice
        results[-1] += arrays(jax.grad(lambda w, layer=layer: loss(layer, w, x))(trainable))
    assert_close(results[1], results[0], 5 * TOLERANCE["float32"])  # sums of squares
    assert kept.waiting.bytes <= before


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's programs call compiled code")
@pytest.mark.parametrize(
    ("kind", "sizes", "options", "masked"),
    [
        ("LSTM", (5, 6, 3, 7), {"return_sequences": True}, False),
        ("LSTM", (1, 12, 40, 256), {}, False),  # threads share its rows
        # Its batch.
        ("GRU", (64, 20, 10, 100), {"return_sequences": True, "go_backwards": True}, False),
        ("GRU, reset before", (5, 6, 3, 7), {"use_bias": False}, False),
        ("SimpleRNN", (5, 6, 3, 7), {"go_backwards": True}, False),
        ("LSTM", (64, 20, 10, 100), {"return_sequences": True}, True),
        ("LSTM", (3, 12, 40, 256), {"return_sequences": True, "zero_output_for_mask": True}, True),
        ("GRU", (64, 20, 10, 100), {"go_backwards": True, "zero_output_for_mask": True}, True),
        ("GRU, reset before", (5, 6, 3, 7), {"use_bias": False, "go_backwards": True}, True),
        ("SimpleRNN", (5, 6, 3, 7), {"return_sequences": True, "unroll": True}, True),
    ],
)
def test_programs_give_the_bits_of_eager_calls(kind, sizes, options, masked, monkeypatch):
    """Without Python: neither its callbacks nor tapes that wait in it are used."""
    import jax

    import fastrnn.keras.backends.jax as backend

    B, T, I, H = sizes
    name, extra = KINDS[kind]
    ours = getattr(fastrnn.keras, name)(H, dtype="float64", return_state=True, **extra, **options)
    ours.build((B, T, I))
    rng = np.random.default_rng(0)
    x, *states = (rng.standard_normal(s) for s in [(B, T, I), (B, H), (B, H)])
    states = states[: len(ours.state_size)]
    weights = [variable.value for variable in ours.trainable_variables]
    others = [variable.value for variable in ours.non_trainable_variables]
    shapes = [y.shape for y in ours(x, initial_state=states)]
    like = tuple(rng.standard_normal(shape) for shape in shapes)
    masks = some_masks(B, T) if masked else [None]

    def run(mask, *given):
        weights, x, states = given
        how = {} if mask is None else {"mask": mask}
        return tuple(ours.stateless_call(weights, others, x, initial_state=states, **how)[0])

    def both(mask, *given):
        outputs, back = jax.vjp(lambda *given: run(mask, *given), *given)
        return outputs, back(like)

    def of_weights(mask):
        return jax.grad(lambda w: run(mask, w, x, states)[0].sum())(weights)

    given = weights, x, states
    threads = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    try:
        wanted = [arrays((both(mask, *given), of_weights(mask))) for mask in masks]
        monkeypatch.setattr(backend, "_run", None)
        inference, some = jax.jit(run), jax.jit(of_weights)
        program = jax.jit(both).lower(masks[0], *given).compile()
        found = [arrays((program(mask, *given), some(mask))) for mask in masks]
        outputs = [arrays(inference(mask, *given)) for mask in masks]
    finally:
        fastrnn.set_num_threads(threads)
    assert program.as_text().count('custom_call_target="fastrnn-') == 2
    assert "callback" not in program.as_text()
    for k in range(len(masks)):
        assert_close(found[k], wanted[k], 0)
        assert_close(outputs[k], wanted[k][: len(outputs[k])], 0)


def some_masks(B, T):
    """Rows padded behind, with some that run in whole and not at all; with holes; all, and none."""
    rng = np.random.default_rng(1)
    lengths = np.append(rng.integers(0, T + 1, B - 2), [0, T])
    behind = np.arange(T) < lengths[:, None]
    return [behind, rng.random((B, T)) < 0.6, np.ones((B, T), bool), np.zeros((B, T), bool)]


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's programs call compiled code")
def test_calls_of_a_program_at_the_same_time_have_masks_of_their_own():
    import jax

    _, ours, _ = pair("GRU", return_sequences=True)
    x = np.random.default_rng(0).standard_normal((32, 20, I)).astype("float32")
    values = [variable.value for variable in ours.trainable_variables]
    others = [variable.value for variable in ours.non_trainable_variables]

    def loss(weights, x, mask):
        return (ours.stateless_call(weights, others, x, mask=mask)[0] ** 2).sum()

    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    masks = some_masks(32, 20)
    wanted = [arrays(program(values, x, mask)) for mask in masks]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda k: arrays(program(values, x, masks[k % 4])), range(40)))
    for k, one in enumerate(found):
        assert_close(one, wanted[k % 4], 0)


@pytest.mark.skipif(BACKEND != "torch", reason="torch's autograd")
def test_torch_s_autograd():
    import torch
    from torch.utils.checkpoint import checkpoint

    own, ours, x = pair("LSTM", return_sequences=True)
    given = torch.tensor(x)
    wanted = gradients(own, x)[1:]
    weights = [variable.value for variable in ours.trainable_variables]
    rng = np.random.default_rng(0)
    dy = torch.tensor(rng.standard_normal((B, T, H)).astype("float32"))

    def found(how):
        return arrays(torch.autograd.grad(how(given), weights, dy, retain_graph=False))

    assert_close(found(ours), wanted, TOLERANCE["float32"])
    assert_close(
        found(lambda x: checkpoint(ours, x, use_reentrant=False)), wanted, TOLERANCE["float32"]
    )
    y = ours(given)
    y.backward(dy, retain_graph=True)
    y.backward(dy)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward(dy)
    with torch.no_grad():
        assert not ours(given).requires_grad
    first = torch.autograd.grad((ours(given) ** 2).sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


@pytest.mark.skipif(BACKEND != "torch", reason="torch's compiler")
def test_a_compiled_function_steps_out_of_its_graph():
    import torch

    _, ours, x = pair("LSTM")
    given = torch.tensor(x)
    weights = [variable.value for variable in ours.trainable_variables]

    @torch.compile(backend="eager")  # what is made of the graph is not the question
    def losses(x):
        loss = (ours(x) ** 2).sum()
        return loss, torch.autograd.grad(loss, weights)

    with only_kernels():
        found = arrays(losses(given))
        loss = (ours(given) ** 2).sum()
        wanted = arrays((loss, torch.autograd.grad(loss, weights)))
    assert_close(found, wanted, 0)


@pytest.mark.skipif(BACKEND != "torch", reason="torch's exporter")
def test_an_export_holds_torch_s_operations():
    import torch

    own, ours, x = pair("LSTM")
    with pytest.warns(UserWarning, match="exported"):
        program = torch.export.export(ours.eval(), (torch.tensor(x),))
    assert_close(arrays(program.module()(torch.tensor(x))), outputs(own, x), TOLERANCE["float32"])


def test_symbolic_shapes():
    for sequences, shape in ((False, (None, H)), (True, (None, None, H))):
        y = fastrnn.keras.LSTM(H, return_sequences=sequences)(keras.Input((None, I)))
        assert y.shape == shape
    h, states = fastrnn.keras.LSTMCell(H)(keras.Input((I,)), [keras.Input((H,)), keras.Input((H,))])
    assert [one.shape for one in (h, *states)] == 3 * [(None, H)]
