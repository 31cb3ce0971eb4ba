"""Models with fastrnn's layers, on the backend that KERAS_BACKEND names."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

import fastrnn.keras
from keras_tools import BACKEND, TRAINS, only_kernels

#: Of float32 weights and losses after a few steps of an optimiser, which divides by small numbers.
TOLERANCE = 1e-4
TRAINING = pytest.mark.skipif(not TRAINS, reason="NumPy's backend does not train")
TOKENS = np.random.default_rng(0).integers(1, 20, (12, 9)) * (np.arange(9) < 6)
LABELS = np.random.default_rng(1).integers(0, 2, (12, 1)).astype("float32")


def model(module):
    """A stack with all that Keras puts around a recurrent layer."""
    keras.utils.set_random_seed(0)
    both = layers.Bidirectional(
        module.LSTM(
            6,
            return_sequences=True,
            kernel_regularizer="l2",
            recurrent_regularizer=keras.regularizers.L1(1e-3),
            activity_regularizer=keras.regularizers.L2(1e-3),
            kernel_constraint=keras.constraints.MaxNorm(0.9),
            unit_forget_bias=False,
            name="both",
        )
    )
    found = keras.Sequential(
        [
            keras.Input((9,), dtype="int32"),
            layers.Embedding(20, 5, mask_zero=True),
            both,
            module.GRU(5, return_sequences=True, dropout=0.2, seed=3, name="gru"),
            layers.RNN(layers.LSTMCell(5), return_sequences=True, name="loop")
            if module is layers
            else fastrnn.keras.RNN(fastrnn.keras.LSTMCell(5), return_sequences=True, name="loop"),
            module.SimpleRNN(4, bias_constraint="non_neg", name="simple"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    if TRAINS:
        found.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    return found


def fit(trained, epochs=3):
    history = trained.fit(TOKENS, LABELS, epochs=epochs, batch_size=4, shuffle=False, verbose=0)
    return history.history["loss"]


def assert_alike(one, trained):
    for found, wanted in zip(one.get_weights(), trained.weights, strict=True):
        if found.dtype.kind == "f":  # not the seeds
            np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@dataclass
class Trained:
    """What Keras's own model has after some epochs."""

    losses: list[float]
    loss: float
    outputs: np.ndarray
    weights: list[np.ndarray]


@pytest.fixture(scope="module")
def own():
    """The weights that Keras's own model begins with, and what it has after each of two fits."""
    one = model(layers)
    start, found = one.get_weights(), []
    for _ in range(2):
        losses = fit(one)
        loss = one.evaluate(TOKENS, LABELS, verbose=0)
        outputs = one.predict(TOKENS, verbose=0)
        found.append(Trained(losses, loss, outputs, one.get_weights()))
    return start, found


@TRAINING
def test_it_trains_like_keras_s_own(own):
    ours = model(fastrnn.keras)
    start, (wanted, _) = own
    ours.set_weights(start)
    with only_kernels():
        found = fit(ours)
        loss = ours.evaluate(TOKENS, LABELS, verbose=0)
    np.testing.assert_allclose(found, wanted.losses, rtol=TOLERANCE)
    assert found[-1] < found[0]
    np.testing.assert_allclose(loss, wanted.loss, rtol=TOLERANCE)
    assert_alike(ours, wanted)


@TRAINING
def test_accelerated_in_the_middle_of_training(own):
    ours = model(layers)
    start, (_, wanted) = own
    ours.set_weights(start)
    fit(ours)
    ours.evaluate(TOKENS, LABELS, verbose=0)  # as its twin was, whose dropout has gone on since
    ours.predict(TOKENS, verbose=0)
    kept = [(layer, layer.variables) for layer in ours.layers]
    report = fastrnn.keras.accelerate(ours)
    assert sorted(name.split("/")[-1] for name in report.swapped) == [
        "backward_both",
        "forward_both",
        "gru",
        "loop",
        "simple",
    ]
    assert not report.left
    for layer, (before, variables) in zip(ours.layers, kept, strict=True):
        assert layer is before
        assert all(a is b for a, b in zip(layer.variables, variables, strict=True))
    with only_kernels():
        np.testing.assert_allclose(fit(ours), wanted.losses, rtol=TOLERANCE)
        found = ours.predict(TOKENS, verbose=0)
    np.testing.assert_allclose(found, wanted.outputs, rtol=TOLERANCE)
    assert_alike(ours, wanted)


#: How a model may be told to run its steps.
WAYS = {
    "by itself": {},
    "compiled": {"jit_compile": True},
    "not compiled": {"jit_compile": False},
    "eagerly": {"run_eagerly": True},
    "four at a time": {"steps_per_execution": 4},
}


#: Of a backend: fastrnn's layers are not for XLA there; torch's tracer takes a minute over Keras's
#: trainer (`cases_layers.py` has what it makes of a layer), and Keras takes one step at a time.
NOT_TAKEN = {("tensorflow", "compiled"), ("torch", "compiled"), ("torch", "four at a time")}


def fit_of_two_inputs(module, **way):
    """Losses, in training and validation, of a model of masked tokens and one-hot letters."""
    keras.utils.set_random_seed(0)
    tokens, letters = keras.Input((9,), dtype="int32"), keras.Input((9, 20))
    words = module.LSTM(6)(layers.Embedding(20, 5, mask_zero=True)(tokens))
    both = layers.Concatenate()([words, module.GRU(5)(letters)])
    one = keras.Model([tokens, letters], layers.Dense(1)(both))
    one.compile(keras.optimizers.SGD(0.1), "mse", **way)
    data = [TOKENS, np.eye(20, dtype="float32")[TOKENS]]
    some = [array[:4] for array in data]
    found = one.fit(
        data, LABELS, epochs=2, batch_size=2, shuffle=False, verbose=0,
        validation_data=(some, LABELS[:4]),
    )  # fmt: skip
    return np.array([found.history["loss"], found.history["val_loss"]])


@TRAINING
def test_each_way_to_run_a_step_gives_keras_s_losses():
    wanted = fit_of_two_inputs(layers)
    assert wanted[0, 1] < wanted[0, 0]
    for way, options in WAYS.items():
        if (BACKEND, way) in NOT_TAKEN:
            continue
        with only_kernels():
            found = fit_of_two_inputs(fastrnn.keras, **options)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=way)


class Other(layers.LSTM):
    pass


def test_what_accelerate_leaves():
    x = keras.Input((6, 3))
    inner = keras.Sequential([keras.Input((6, 4)), layers.GRU(4, return_sequences=True, name="in")])
    y = layers.LSTM(4, return_sequences=True, name="a")(x)
    y = inner(y)
    y = layers.LSTM(4, activation="celu", return_sequences=True, name="b")(y)
    y = Other(4, return_sequences=True, name="c")(y)
    stack = layers.RNN([layers.LSTMCell(4), layers.GRUCell(4)], return_sequences=True, name="d")
    y = layers.TimeDistributed(layers.Dense(4))(stack(y))
    y = fastrnn.keras.GRU(4, name="e", return_sequences=True)(y)
    y = layers.GRU(4, name="f", dtype="mixed_float16")(y)
    whole = keras.Model(x, y)
    data = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")
    wanted = whole.predict(data, verbose=0)
    report = fastrnn.keras.accelerate(whole)
    assert {name.split("/")[-1] for name in report.swapped} == {"a", "in"}
    reasons = {name.split("/")[-1]: reason for name, reason in report.left.items()}
    assert reasons == {
        "b": fastrnn.keras.FALLBACKS["activation"],
        "c": "it is a Other, whose equations may be others",
        "d": fastrnn.keras.FALLBACKS["cell"],
        "e": "it is fastrnn's already",
        "f": fastrnn.keras.FALLBACKS["dtype"],
    }
    np.testing.assert_allclose(whole.predict(data, verbose=0), wanted, rtol=1e-3)  # half precision
    assert fastrnn.keras.accelerate(whole).swapped == ()
    with pytest.raises(TypeError, match="model is a list, wanted a Keras model or layer"):
        fastrnn.keras.accelerate([whole])
    assert {name.split("/")[-1] for name in fastrnn.keras.restore(whole)} == {"a", "in", "e"}
    for found, own in ((whole.get_layer("a"), layers.LSTM), (inner.get_layer("in"), layers.GRU)):
        assert type(found) is own
    np.testing.assert_allclose(whole.predict(data, verbose=0), wanted, rtol=1e-3)
    assert fastrnn.keras.restore(whole) == ()
    with pytest.raises(TypeError, match="model is a list, wanted a Keras model or layer"):
        fastrnn.keras.restore([whole])


def test_a_saved_model_comes_back_as_fastrnn_s(tmp_path):
    ours = model(fastrnn.keras)
    ours.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras")
    assert type(back.get_layer("gru")) is fastrnn.keras.GRU
    wanted = ours.predict(TOKENS, verbose=0)
    np.testing.assert_array_equal(back.predict(TOKENS, verbose=0), wanted)
    ours.save_weights(tmp_path / "model.weights.h5")
    own = model(layers)
    own.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(own.predict(TOKENS, verbose=0), wanted, rtol=TOLERANCE)
    copied = keras.models.clone_model(ours)
    copied.set_weights(ours.get_weights())
    np.testing.assert_array_equal(copied.predict(TOKENS, verbose=0), wanted)


#: What everyone learns from; the one line that changes comes first.
SERIES = """
from keras.layers import {layer}
from keras.models import Sequential
from keras.layers import Dense

model = Sequential([
    {layer}({units}, activation='tanh', input_shape=(100, 1)),
    Dense(1, activation='sigmoid'),
])
y = model.predict(x, verbose=0)
"""
REVIEWS = """
from keras.layers import LSTM
import numpy as np
from keras.layers import Dense, Embedding
from keras.models import Sequential
from keras.utils import pad_sequences

reviews = [
    'a great film with great actors',
    'boring and far too long',
    'i loved every minute of it',
    'a waste of time',
    'great fun for everyone',
    'the worst film i have seen',
]
labels = np.array([1, 0, 1, 0, 1, 0])
words = sorted(set(' '.join(reviews).split()))
number = {word: index + 1 for index, word in enumerate(words)}


def tokens(texts):
    return pad_sequences([[number[w] for w in t.split() if w in number] for t in texts], maxlen=8)


model = Sequential([
    Embedding(SIZE),
    LSTM(UNITS),
    Dense(1, activation='sigmoid'),
])
model.compile(optimizer='adam', loss='binary_crossentropy', metrics=['accuracy'])
losses = model.fit(tokens(reviews), labels, epochs=10, verbose=0).history['loss']
y = model.predict(tokens(['a great film i loved']), verbose=0)
"""
REVIEWS_TAUGHT = {
    "embedding of 64": ("1000, 64", "64"),
    "embedding of 128, dropout": ("10000, 128", "units=64, dropout=0.2"),
}


def three_ways(snippet, layer, **names):
    """What a snippet makes: of Keras's layer, of fastrnn's, and of Keras's after `accelerate`."""
    fastrnns = snippet.replace("from keras.layers import", "from fastrnn.keras import", 1)
    ran = "\nfrom fastrnn.keras import accelerate\nassert accelerate(model).swapped\n"
    found = []
    for way, text in enumerate((snippet, fastrnns, snippet)):
        keras.utils.set_random_seed(0)
        if way == 2:
            at = text.index("\n])\n") + len("\n])\n")
            text = text[:at] + ran + text[at:]
        made = dict(names)
        if way == 0:
            exec(text, made)
        else:
            with only_kernels():
                exec(text, made)
            kept = [one for one in made["model"].layers if type(one).__name__ == layer]
            assert [type(one) for one in kept] == [getattr(fastrnn.keras, layer)]
        found.append(made)
    return found


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize(("layer", "units"), [("SimpleRNN", 50), ("LSTM", 100)])
def test_the_classic_series(layer, units):
    x = np.sin(np.arange(800) / 5).astype("float32").reshape(8, 100, 1)
    own, *ours = three_ways(SERIES.format(layer=layer, units=units), layer, x=x)
    assert own["y"].shape == (8, 1)
    for one in ours:
        np.testing.assert_allclose(one["y"], own["y"], rtol=1e-5)


@TRAINING
@pytest.mark.parametrize("taught", REVIEWS_TAUGHT)
def test_the_classic_reviews(taught):
    size, arguments = REVIEWS_TAUGHT[taught]
    text = REVIEWS.replace("SIZE", size).replace("UNITS", arguments)
    own, *ours = three_ways(text, "LSTM")
    assert own["losses"][-1] < own["losses"][0]
    for one in ours:
        np.testing.assert_allclose(one["losses"], own["losses"], rtol=TOLERANCE)
        np.testing.assert_allclose(one["y"], own["y"], rtol=TOLERANCE)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA is TensorFlow's choice")
def test_tensorflow_does_not_try_xla():
    own = keras.Sequential([keras.Input((6, 3)), layers.GRU(4, use_cudnn=False)])
    own.compile("sgd", "mse", jit_compile=True)
    assert own.jit_compile
    fastrnn.keras.accelerate(own)
    assert not own.jit_compile
    own.fit(np.ones((4, 6, 3), "float32"), np.ones((4, 4), "float32"), verbose=0)
