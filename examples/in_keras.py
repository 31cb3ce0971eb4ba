"""A Keras model with fastrnn's layer: masks, training, and Keras's own layer beside it.

The task: sequences of tokens, padded with zeros to the same length; tell whether the last token
above 5 was an even one. One import is changed, `from fastrnn.keras import LSTM`.

    python examples/in_keras.py

prints how many unseen sequences it tells right, and how far Keras's own LSTM, given the same
weights, is from it. Needs `pip install -e ".[keras]"` and a backend, which
KERAS_BACKEND names, if there are several.
"""

import os
from importlib.util import find_spec

import numpy as np

if "KERAS_BACKEND" not in os.environ:  # has to be told before Keras is imported
    os.environ["KERAS_BACKEND"] = next(filter(find_spec, ("torch", "jax", "tensorflow")))

import keras

from fastrnn.keras import LSTM

T = 24


def model_with(layer: keras.layers.Layer) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((T,)),
            keras.layers.Embedding(10, 16, mask_zero=True),
            layer,
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def batch(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (size, T), padded behind with zeros, and answers (size, 1)."""
    tokens = rng.integers(1, 10, (size, T))
    tokens[:, 0] = rng.integers(6, 10, size)
    tokens[np.arange(T) >= rng.integers(8, T + 1, (size, 1))] = 0
    last = T - 1 - np.argmax(tokens[:, ::-1] > 5, axis=1)
    return tokens, (tokens[np.arange(size), last] % 2 == 0).astype("float32")[:, None]


def main() -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = model_with(LSTM(32))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(*batch(4096, rng), batch_size=64, epochs=2, verbose=0)

    tokens, answers = batch(512, rng)
    said = model.predict(tokens, verbose=0)
    print(f"backend: {keras.backend.backend()}")
    print(f"right on unseen sequences: {np.mean((said > 0.5) == answers):.1%}")
    twin = model_with(keras.layers.LSTM(32))
    twin.set_weights(model.get_weights())
    print(
        f"Keras's own layer differs by {np.abs(twin.predict(tokens, verbose=0) - said).max():.1e}"
    )


if __name__ == "__main__":
    main()
