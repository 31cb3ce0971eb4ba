"""A model in Keras on torch, and a step of it: `train_on_batch`."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from fastrnn.bench.data import Array
from fastrnn.bench.loop.data import Batch, weights
from fastrnn.bench.loop.models import Model

os.environ["KERAS_BACKEND"] = "torch"  # before it is imported
import keras


class Training:
    """Steps that train a model."""

    def __init__(self, model: Model, layers: Any, dtype: str) -> None:
        self.model, self.draws = model, 0
        keras.config.set_floatx(dtype)
        recurrent = getattr(layers, model.cell.upper())(model.hidden)
        front: list[Any] = [keras.Input((model.T, model.inputs))]
        if model.vocabulary:
            words = keras.layers.Embedding(model.vocabulary, model.inputs)
            front = [keras.Input((model.T,), dtype="int32"), words]
        dense = keras.layers.Dense(model.outputs)
        self.network = keras.Sequential([*front, recurrent, dense])
        optimizer = keras.optimizers.Adam(1e-3, global_clipnorm=1.0)
        self.network.compile(optimizer=optimizer, loss="mse")

    def load(self, given: Batch) -> Any:
        """The input as arrays."""
        whole = np.issubdtype(given.x.dtype, np.integer)
        x = given.x.astype(np.int32 if whole else keras.config.floatx())
        return x, given.wanted.astype(keras.config.floatx())

    def rewind(self, loaded: Any) -> None:
        """The parameters' next values."""
        self.draws += 1
        shapes = [tuple(one.shape) for one in self.network.weights]
        self.network.set_weights(weights(shapes, self.draws))

    def run(self, loaded: Any) -> Any:
        """One step; its loss."""
        # Keras gives the mean over all batches since the metrics were begun anew, as an epoch does.
        self.network.reset_metrics()
        return self.network.train_on_batch(*loaded)

    def read(self, result: Any) -> dict[str, Array]:
        """The loss, and the gradients."""
        gradients = {
            f"d{one.path.partition('/')[2]} {k}": one.value.grad.numpy(force=True)
            for k, one in enumerate(self.network.trainable_weights)
        }
        return {"loss": np.asarray(result, keras.config.floatx()), **gradients}


def build(model: Model, own: bool, dtype: str) -> Training:
    """The model with fastrnn's layers, or Keras's own."""
    return Training(model, importlib.import_module("fastrnn.keras") if own else keras.layers, dtype)
