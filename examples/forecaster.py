"""Train a forecaster with fastrnn's own gradients, and beat the naive forecast.

The series is a wave whose length and height change, with noise. An LSTM sees it value by value
and forecasts the change over the next 8 steps; the naive forecast says that nothing will change.
Forward pass and backpropagation through time are fastrnn's; Adam is written out below.

    python examples/forecaster.py

prints both mean squared errors, on a part of the series that training has not seen.
"""

import numpy as np

import fastrnn

T, B, AHEAD, STEPS = 100, 32, 8, 150


class Adam:
    """Adam (Kingma & Ba, arXiv:1412.6980, Algorithm 1), for parameters by name."""

    def __init__(self, rate: float = 0.01) -> None:
        self.rate, self.step = rate, 0
        self.m, self.v = {}, {}

    def __call__(self, values, gradients):
        """The parameters after a step."""
        self.step += 1
        new = {}
        for name, g in gradients.items():
            self.m[name] = m = 0.9 * self.m.get(name, 0) + 0.1 * g
            self.v[name] = v = 0.999 * self.v.get(name, 0) + 0.001 * g * g
            m, v = m / (1 - 0.9**self.step), v / (1 - 0.999**self.step)
            new[name] = (values[name] - self.rate * m / (np.sqrt(v) + 1e-8)).astype(np.float32)
        return new


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
    adam = Adam()
    for step in range(1, STEPS + 1):
        window = rng.integers(0, 4500, B) + np.arange(T + AHEAD)[:, None]  # (T + AHEAD, B)
        x = values[window[:T], None]  # (T, B, 1)
        target = values[window[AHEAD:], None] - x
        y, _, tape = model.forward(x)
        error = y - target
        gradients = model.backward(tape, 2 * error / error.size)
        model.update(adam(model.parameters, gradients.parameters))
        if step % 50 == 0:
            print(f"step {step}: training error {np.mean(error**2):.4f}")

    unseen = values[4700:]
    x, target = unseen[:-AHEAD, None, None], unseen[AHEAD:]
    y, _ = model(x)
    forecast = x[:, 0, 0] + y[:, 0, 0]
    print(f"naive forecast: {np.mean((x[:, 0, 0] - target) ** 2):.4f}")
    print(f"fastrnn's LSTM: {np.mean((forecast - target) ** 2):.4f}")


if __name__ == "__main__":
    main()
