"""Long sequences: checkpoints, the bytes of tapes, truncated backpropagation, clipped gradients."""

import numpy as np
import pytest

import fastrnn
from cases import as_state, assert_close, make, problem, states

T, B, I, H = 53, 5, 5, 33  # rows enough for several chains of sums, and no multiple of one
LENGTHS = np.array([53, 0, 20, 41, 1])


def same(one, other):
    """Whether two arrays are the same to the sign of a zero."""
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def assert_same_gradients(one, other):
    assert same(one.x, other.x)
    for mine, its in zip(states(one.state), states(other.state), strict=True):
        assert same(mine, its)
    assert one.parameters.keys() == other.parameters.keys()
    for name, value in one.parameters.items():
        assert same(value, other.parameters[name]), name


LAYERS = {
    "stack": lambda: make("LSTM", I, H, 2, bidirectional=True, dropout=0.4, dtype="float64"),
    "late": lambda: make("GRU-reset-before", I, H, bidirectional=True, dtype="float64"),
    "projected": lambda: make("LSTM", I, H, proj_size=9, batch_first=True, dtype="float64"),
    "per unit": lambda: fastrnn.cells.PeepholeLSTM(
        I, H, bidirectional=True, seed=0, dtype="float64"
    ),
}


@pytest.mark.parametrize("cut", ["plain", "lengths", "reset", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_checkpoints_change_no_bit(name, cut):
    layer = LAYERS[name]()
    p = problem(layer, T, B)
    x, dy, how = p.x, p.dy, {}
    if cut in ("lengths", "both"):
        how["lengths"] = LENGTHS
    if cut in ("reset", "both"):
        how["reset"] = np.random.default_rng(0).random((T, B)) < 0.1
    if layer.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
        how = {n: value.T if n == "reset" else value for n, value in how.items()}
    clip = {"clip_value": 0.05, "clip_norm": 0.2}

    def forward(checkpoint):
        rng = np.random.default_rng(3)
        return layer.forward(x, as_state(p.state), rng=rng, checkpoint=checkpoint, **how)

    y, state, whole = forward(None)
    wanted = layer.backward(whole, dy, as_state(p.dstate))
    clipped = layer.backward(whole, dy, as_state(p.dstate), **clip)
    for checkpoint in (1, 7, T, 100, "auto"):
        found, final, tape = forward(checkpoint)
        assert same(found, y)
        for mine, its in zip(states(final), states(state), strict=True):
            assert same(mine, its)
        assert_same_gradients(layer.backward(tape, dy, as_state(p.dstate)), wanted)
        assert_same_gradients(layer.backward(tape, dy, as_state(p.dstate), **clip), clipped)


def arrays_of(tape):
    """The arrays that a tape holds, each once."""
    if hasattr(tape, "tapes"):
        return [array for one in tape.tapes for array in arrays_of(one)]
    if not hasattr(tape, "passes"):
        return [tape.x, tape.y]
    found = [mask for mask in tape.masks or () if mask is not None]
    for one in tape.passes:
        fields = [getattr(one, name) for name in one.__slots__]
        parts = [field if isinstance(field, tuple) else (field,) for field in fields]
        found += [a for part in parts for a in part if isinstance(a, np.ndarray)]
    return {array.ctypes.data: array for array in found if array.size}.values()


@pytest.mark.parametrize("checkpoint", [None, 7, "auto"])
def test_the_bytes_of_a_tape_are_told_ahead(checkpoint):
    model = fastrnn.Sequential(
        make("LSTM", I, H, 2, bidirectional=True, dropout=0.4),
        make("LSTM", 2 * H, H, proj_size=9),
        make("GRU-reset-before", 9, H),
        fastrnn.Linear(H, 2),
    )
    x = problem(model[0], T, B).x
    _, _, tape = model.forward(x, checkpoint=checkpoint)
    held = sum(array.nbytes for array in arrays_of(tape))
    assert model.tape_bytes(T, B, checkpoint) == held
    assert (held < model.tape_bytes(T, B)) == (checkpoint is not None)


def test_a_model_with_checkpoints_has_the_same_gradients():
    model = fastrnn.Sequential(make("LSTM", I, H), fastrnn.Linear(H, 2, seed=0))
    x = problem(model[0], T, B).x
    y, _, whole = model.forward(x)
    _, _, tape = model.forward(x, checkpoint=10)
    assert_same_gradients(model.backward(tape, y), model.backward(whole, y))


def test_wrong_checkpoints_are_refused():
    layer = make("LSTM", 3, 4)
    x = np.zeros((5, 2, 3), np.float32)
    for wrong, error in (
        ("often", TypeError),
        (2.0, TypeError),
        (True, TypeError),
        (0, ValueError),
    ):
        with pytest.raises(error, match=f"checkpoint is {wrong!r}, wanted"):
            layer.forward(x, checkpoint=wrong)
    with pytest.raises(ValueError, match="with a checkpoint the gates are not kept"):
        layer.forward(x, checkpoint=2, return_gates=True)


def clipped(value, norm, rows):
    """What flows to the step before: rows (B, H)."""
    if value is not None:
        rows = np.clip(rows, -value, value)
    if norm is not None:
        rows = rows * np.minimum(1, norm / np.linalg.norm(rows, axis=1, keepdims=True))
    return rows


@pytest.mark.parametrize(("value", "norm"), [(0.02, None), (None, 0.05), (0.02, 0.05)])
def test_the_gradient_between_steps_is_clipped(value, norm):
    """Against LSTM's backward pass in NumPy."""
    layer = make("LSTM", I, H, dtype="float64")
    p = problem(layer, 12, B)
    y, _, tape = layer.forward(p.x, p.state, return_gates=True)
    found = layer.backward(tape, p.dy, p.dstate, clip_value=value, clip_norm=norm)
    R = layer.parameters["weight_hh_l0"]
    gates = tape.gates[0]
    h, c = (np.concatenate(pair) for pair in zip(p.state, (y, gates["c"]), strict=True))
    dh, dc = (d[0] for d in p.dstate)
    sums = np.empty((12, B, 4 * H))
    for t in reversed(range(12)):
        i, f, g, o = (gates[name][t] for name in "ifgo")
        after = np.tanh(c[t + 1])
        dh = dh + p.dy[t]
        dc = dc + dh * o * (1 - after**2)
        parts = (
            dc * g * i * (1 - i), dc * c[t] * f * (1 - f), dc * i * (1 - g**2),
            dh * after * o * (1 - o),
        )  # fmt: skip
        sums[t] = np.concatenate(parts, axis=1)
        dh, dc = clipped(value, norm, sums[t] @ R), clipped(value, norm, dc * f)
    assert_close(found.x, sums @ layer.parameters["weight_ih_l0"], 1e-10, "x")
    wanted = np.einsum("tbg,tbh->gh", sums, h[:-1])
    assert_close(found.parameters["weight_hh_l0"], wanted, 1e-10, "weight_hh_l0")
    for mine, its in zip(found.state, (dh, dc), strict=True):
        assert_close(mine[0], its, 1e-10, "state")
    plain = layer.backward(tape, p.dy, p.dstate)
    assert np.abs(found.x - plain.x).max() > 1e-3


def test_members_of_a_team_clip_whole_rows():
    layer = make("LSTM", 128, 256, dtype="float64")
    p = problem(layer, 99, 1)
    before = fastrnn.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            fastrnn.set_num_threads(threads)
            _, _, tape = layer.forward(p.x, p.state)
            found.append(layer.backward(tape, p.dy, p.dstate, clip_value=0.1, clip_norm=0.5))
    finally:
        fastrnn.set_num_threads(before)
    assert_same_gradients(*found)


def test_wrong_clips_are_refused():
    layer = make("LSTM", 3, 4)
    y, _, tape = layer.forward(np.zeros((5, 2, 3), np.float32))
    with pytest.raises(ValueError, match="clip_value is 0, wanted more than 0, or None"):
        layer.backward(tape, y, clip_value=0)
    with pytest.raises(TypeError, match="clip_norm is '1', wanted a number or None"):
        layer.backward(tape, y, clip_norm="1")


def williams_and_peng(w, x, target, k1, k2, rate):
    """BPTT(k2; k1) of an RNN in NumPy, which learns as it goes: the weights afterwards.

    Every k1 steps, gradients go back through k2 steps, as they were, from the errors of k1.
    """
    steps, h = [], np.zeros((x.shape[1], len(w["weight_hh_l0"])))
    for t in range(len(x)):
        before, h = h, np.tanh(
            x[t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T
            + w["bias_hh_l0"]
        )  # fmt: skip
        steps.append((before, h, w["weight_hh_l0"]))
        if (t + 1) % k1:
            continue
        total, dh = {name: np.zeros_like(value) for name, value in w.items()}, np.zeros_like(h)
        for s in range(t, max(-1, t - k2), -1):
            before, after, R = steps[s]
            if s > t - k1:
                dh = dh + 2 * (after - target[s])
            da = dh * (1 - after**2)
            total["weight_ih_l0"] += da.T @ x[s]
            total["weight_hh_l0"] += da.T @ before
            for name in ("bias_ih_l0", "bias_hh_l0"):
                total[name] += da.sum(0)
            dh = da @ R
        w = {name: value - rate * total[name] for name, value in w.items()}
    return w


@pytest.mark.parametrize(("k1", "k2"), [(1, 4), (3, 3), (4, 6), (12, 12)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_truncated_backpropagation(k1, k2, batch_first):
    layer = make("RNN-tanh", I, 7, dtype="float64", batch_first=batch_first)
    p = problem(layer, 12, B)
    wanted = williams_and_peng(dict(layer.parameters), p.x, p.dy, k1, k2, 0.05)
    x, target = (np.swapaxes(a, 0, 1) if batch_first else a for a in (p.x, p.dy))
    for window in fastrnn.truncated(layer, x, tbptt=(k1, k2)):
        at = (slice(None), window.steps) if batch_first else window.steps
        gradients = window.backward(2 * (window.y - target[at]))
        layer.update({n: value - 0.05 * gradients[n] for n, value in layer.parameters.items()})
    for name, value in wanted.items():
        assert_close(layer.parameters[name], value, 1e-10, name)


def test_truncated_at_the_end_is_full_backpropagation():
    model = fastrnn.Sequential(make("LSTM", I, H), fastrnn.Linear(H, 2, seed=0))
    p = problem(model[0], 12, B)
    (window,) = fastrnn.truncated(model, p.x, (p.state,), tbptt=(12, 12))
    y, _, tape = model.forward(p.x, (p.state,))
    assert same(window.y, y)
    found, wanted = window.backward(y), model.backward(tape, y).parameters
    for name, value in wanted.items():
        assert same(found[name], value), name
    # What is left of T is a window too; no step is lost, and the state goes on.
    windows = list(fastrnn.truncated(model, p.x, (p.state,), tbptt=(5, 10)))
    assert [one.steps for one in windows] == [slice(0, 5), slice(5, 10), slice(10, 12)]
    assert same(np.concatenate([one.y for one in windows]), y)
    last = windows[-1].backward(y[10:])
    assert all(np.isfinite(value).all() for value in last.values())
    assert last.keys() == wanted.keys()


def test_wrong_windows_are_refused():
    layer, x = make("LSTM", 3, 4), np.zeros((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"tbptt is \(3, 2\), wanted k1 at most k2"):
        fastrnn.truncated(layer, x, tbptt=(3, 2))
    with pytest.raises(TypeError, match=r"tbptt is 3, wanted \(k1, k2\)"):
        fastrnn.truncated(layer, x, tbptt=3)
    with pytest.raises(ValueError, match="is bidirectional, and has no state to carry on"):
        fastrnn.truncated(make("LSTM", 3, 4, bidirectional=True), x, tbptt=(2, 2))
    with pytest.raises(TypeError, match="model is a LSTMCell, wanted a layer or a Sequential"):
        fastrnn.truncated(fastrnn.LSTMCell(3, 4), x, tbptt=(2, 2))
    (window,) = fastrnn.truncated(layer, x, tbptt=(5, 5))
    with pytest.raises(ValueError, match="dy has shape"):
        window.backward(window.y[:4])
