"""Run the test files that Keras's wheel carries, with fastrnn's classes in place of Keras's.

KERAS_BACKEND=torch python keras_own_tests.py lstm_test.py gru_test.py
"""

import sys
from pathlib import Path

import keras.src.layers
import pytest

import fastrnn.keras

REPLACED = "SimpleRNN", "LSTM", "GRU", "RNN", "SimpleRNNCell", "LSTMCell", "GRUCell"


def main(names: list[str]) -> int:
    for name in REPLACED:
        setattr(keras.src.layers, name, getattr(fastrnn.keras, name))
    folder = Path(keras.src.layers.__file__).parent / "rnn"
    own = [str(folder / name) for name in names]
    return pytest.main(
        ["-q", "-rs", "-W", "ignore", "-p", "no:cacheprovider", "--rootdir", str(folder), *own]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
