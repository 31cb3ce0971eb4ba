"""Steps of a stream inside of your own compiled loop, each needing what the last one caused.

A controller holds a pendulum that the loop simulates: at each tick the network is given what a
sensor sees, and its output goes to the motor. So no step can be computed before the last one is
done, and there is no block to compute at once. In Python such a loop takes microseconds to a tick;
here simulation and network are one compiled function, which takes no lock and allocates nothing.

    python examples/inside_njit.py

prints how far the pendulum has swung without and with the controller, and the time of a tick.
"""

import time

import numba
import numpy as np

import fastrnn

TICKS, DT = 20_000, 0.005  # a hundred seconds


@numba.njit(nogil=True)
def simulate(handle, ticks, angle, speed, wind):
    """The largest angle in the second half: a pendulum upside down, pushed by the wind."""
    x, y = np.zeros(2, np.float32), np.zeros(1, np.float32)
    worst = 0.0
    for k in range(ticks):
        x[0], x[1] = angle, speed
        if fastrnn.jit.step(handle, x, y) != fastrnn.jit.DONE:
            return np.inf
        speed += DT * (np.sin(angle) - 12 * y[0] + wind[k])
        angle += DT * speed
        if k > ticks // 2:
            worst = max(worst, abs(angle))
    return worst


def controller(gain: float) -> fastrnn.Sequential:
    """A small RNN that leans against angle and speed, and remembers a little of both.

    Unit 0 follows the angle, unit 1 the speed; the output mixes them.
    """
    rnn, mix = fastrnn.RNN(2, 2, seed=0), fastrnn.Linear(2, 1, seed=0)
    none = np.zeros(2, np.float32)
    rnn.update(
        {
            "weight_ih_l0": 0.5 * np.eye(2, dtype=np.float32),
            "weight_hh_l0": 0.5 * np.eye(2, dtype=np.float32),
            "bias_ih_l0": none,
            "bias_hh_l0": none,
        }
    )
    mix.update({"weight": np.array([[gain, gain]], np.float32), "bias": none[:1]})
    return fastrnn.Sequential(rnn, mix)


def main() -> None:
    wind = 0.5 * np.random.default_rng(0).standard_normal(TICKS)
    simulate(controller(1).stream().handle, 1, 0.1, 0.0, wind)  # compiles
    for name, gain in (("without", 0.0), ("with", 1.0)):
        stream = controller(gain).stream()
        start = time.perf_counter()
        worst = simulate(stream.handle, TICKS, 0.1, 0.0, wind)
        taken = time.perf_counter() - start
        print(f"{name} the controller: swings by up to {worst:.3f} rad")
    print(f"a tick, network and pendulum: {taken / TICKS * 1e9:.0f} ns")


if __name__ == "__main__":
    main()
