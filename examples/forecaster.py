"""Train a forecaster with fastrnn's own gradients, and beat the naive forecast.

The series is a wave whose length and height change, with noise. An LSTM sees it value by value
and forecasts the change over the next 8 steps; the naive forecast says that nothing will change.
Loss, backpropagation through time and Adam are fastrnn's.

    python examples/forecaster.py

prints both mean squared errors, on a part of the series that training has not seen.
"""

import numpy as np

import fastrnn
from fastrnn import train

T, B, AHEAD, STEPS = 100, 32, 8, 150


def series(length: int, rng: np.random.Generator) -> np.ndarray:
    """A wave of period 20 to 40, its height changing too, and noise of 0.05."""
    t = np.arange(length)
    phase = np.cumsum(2 * np.pi / (30 + 10 * np.sin(t / 150)))
    wave = (1 + 0.3 * np.sin(t / 70)) * np.sin(phase)
    return (wave + 0.05 * rng.standard_normal(length)).astype(np.float32)


def main() -> None:
    rng = np.random.default_rng(0)
    values = series(6000, rng)
    model = fastrnn.Sequential(fastrnn.LSTM(1, 24, seed=0), fastrnn.Linear(24, 1, seed=1))
    loss, adam = train.MeanSquare(), train.Adam(0.01)
    for step in range(1, STEPS + 1):
        window = rng.integers(0, 4500, B) + np.arange(T + AHEAD)[:, None]  # (T + AHEAD, B)
        x = values[window[:T], None]  # (T, B, 1)
        target = values[window[AHEAD:], None] - x
        y, _, tape = model.forward(x)
        error, dy = loss(y, target)
        adam.step(model, model.backward(tape, dy).parameters)
        if step % 50 == 0:
            print(f"step {step}: training error {error:.4f}")

    unseen = values[4700:]
    x, target = unseen[:-AHEAD, None, None], unseen[AHEAD:]
    y, _ = model(x)
    forecast = x[:, 0, 0] + y[:, 0, 0]
    print(f"naive forecast: {np.mean((x[:, 0, 0] - target) ** 2):.4f}")
    print(f"fastrnn's LSTM: {np.mean((forecast - target) ** 2):.4f}")


if __name__ == "__main__":
    main()
