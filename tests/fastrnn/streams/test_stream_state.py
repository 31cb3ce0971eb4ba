"""The state of a stream: read, set, put back to zero, carried elsewhere; rows that come and go."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from cases import as_state, make, make_cell, problem, states
from fastrnn.streams.snapshot import Snapshot


@pytest.fixture
def layer():
    return make("LSTM", 5, 7, num_layers=2)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((20, 3, 5), dtype=np.float32)


def test_the_state_is_a_copy_in_the_layers_own_layout(layer, x):
    stream = layer.stream(3)
    stream.block(x)
    h, c = stream.state
    _, (h_n, c_n) = layer(x)
    np.testing.assert_array_equal(h, h_n, strict=True)
    np.testing.assert_array_equal(c, c_n, strict=True)
    h[...] = 9
    np.testing.assert_array_equal(stream.state[0], h_n)


def test_a_state_that_is_set_is_what_the_next_step_begins_from(layer, x):
    p = problem(layer, 1, 3)
    stream = layer.stream(3)
    stream.block(x)
    stream.state = as_state(p.state)
    wanted, _ = layer(x, as_state(p.state))
    np.testing.assert_array_equal(stream.block(x), wanted)
    stream.state = None
    np.testing.assert_array_equal(stream.block(x), layer(x)[0])


@pytest.mark.parametrize("rows", [None, 1, [0, 2], np.array([2])])
def test_reset_rows_begin_anew_and_no_others(layer, x, rows):
    stream = layer.stream(3)
    stream.block(x)
    before = stream.state
    stream.reset(rows)
    reset = np.zeros(3, bool)
    reset[slice(None) if rows is None else rows] = True
    for now, old in zip(stream.state, before, strict=True):
        assert not now[:, reset].any()
        np.testing.assert_array_equal(now[:, ~reset], old[:, ~reset])
    wanted, _ = layer(x, tuple(np.where(reset[:, None], 0, s).astype(s.dtype) for s in before))
    np.testing.assert_array_equal(stream.block(x), wanted)


@pytest.mark.smoke
def test_a_snapshot_goes_back_to_its_moment(layer, x):
    stream = layer.stream(3)
    stream.block(x[:7])
    moment = stream.snapshot()
    rest = stream.block(x[7:])
    stream.reset()
    stream.restore(moment)
    np.testing.assert_array_equal(stream.block(x[7:]), rest)
    other = layer.stream(3)
    other.restore(pickle.loads(pickle.dumps(moment)))
    np.testing.assert_array_equal(other.block(x[7:]), rest)


def test_a_snapshot_continues_in_another_process(layer, x, tmp_path):
    stream = layer.stream(3)
    stream.block(x[:7])
    (tmp_path / "moment").write_bytes(stream.snapshot().to_bytes())
    layer.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "x.npy", x[7:])
    script = (
        "import sys, numpy as np, fastrnn; from pathlib import Path; here = Path(sys.argv[1])\n"
        "stream = fastrnn.load(here / 'model.safetensors').stream(3)\n"
        "stream.restore(fastrnn.Snapshot.from_bytes((here / 'moment').read_bytes()))\n"
        "np.save(here / 'y.npy', np.stack([stream.step(x) for x in np.load(here / 'x.npy')]))\n"
    ).replace("[stream.step(x) for", "[stream.step(x).copy() for")
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), stream.block(x[7:]))


def test_a_snapshot_of_a_cell_with_one_state():
    layer = make("GRU", 5, 7)
    x = np.random.default_rng(0).standard_normal((9, 1, 5), dtype=np.float32)
    stream = layer.stream()
    stream.block(x)
    moment = Snapshot.from_bytes(stream.snapshot().to_bytes())
    rest = stream.block(x)
    stream.restore(moment)
    np.testing.assert_array_equal(stream.block(x), rest)


def test_what_does_not_matter_to_a_stream_does_not_matter_to_its_snapshots(layer, x):
    stream = layer.stream(3)
    moment = stream.snapshot()
    layer.dropout, layer.batch_first = 0.5, True
    layer.stream(3).restore(moment)
    with pytest.raises(ValueError, match="of another model"):
        layer.stream(3, weights="int8").restore(moment)


def test_a_snapshot_does_not_change_with_its_stream(layer, x):
    stream = layer.stream(3)
    stream.block(x)
    moment = stream.snapshot()
    before = {name: array.copy() for name, array in moment.arrays.items()}
    stream.block(x)
    for name, array in moment.arrays.items():
        np.testing.assert_array_equal(array, before[name])
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_snapshots_of_others_are_refused_and_change_nothing(layer, x):
    stream = layer.stream(3)
    stream.block(x)
    before = stream.state
    other = make("LSTM", 5, 7, num_layers=2, seed=1)
    for wrong in (other.stream(3), make("LSTM", 5, 9).stream(3), make_cell("LSTM", 5, 7).stream(3)):
        with pytest.raises(ValueError, match=r"another model or of other parameters"):
            stream.restore(wrong.snapshot())
    with pytest.raises(ValueError, match=r"snapshot holds float32 \(2, 7\) as 0.h, wanted"):
        stream.restore(layer.stream(2).snapshot())
    with pytest.raises(TypeError, match="snapshot is a tuple"):
        stream.restore(before)
    for now, old in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(now, old)


def test_broken_bytes_are_no_snapshot(layer):
    data = layer.stream(3).snapshot().to_bytes()
    for broken in (b"", data[:9], data[:-1], b"x" + data, data + b"x", layer_file(layer)):
        with pytest.raises(ValueError, match="no whole snapshot"):
            Snapshot.from_bytes(broken)
    with pytest.raises(TypeError, match="data is a str, wanted bytes"):
        Snapshot.from_bytes("snapshot")


def layer_file(layer):
    from safetensors.numpy import save

    return save(layer.state_dict())


def test_refresh_takes_up_changed_parameters_and_keeps_the_state(layer, x):
    stream = layer.stream(3)
    first = stream.block(x[:5])
    state = stream.state
    layer.update({name: 0.5 * value for name, value in layer.parameters.items()})
    kept = stream.snapshot()
    unchanged = stream.block(x[5:10])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(unchanged, layer(x[5:10], state)[0])
    stream.restore(kept)
    stream.refresh()
    np.testing.assert_array_equal(stream.block(x[5:10]), layer(x[5:10], state)[0])
    assert first.shape == (5, 3, 7)
    with pytest.raises(ValueError, match="of other parameters"):
        stream.restore(kept)


def test_clients_come_and_go_without_disturbing_each_other(layer, x):
    pool = layer.stream(3)
    a, b = pool.add_stream(), pool.add_stream()
    pool.block(x[:4])
    pool.remove_stream(a)
    c = pool.add_stream()
    assert c == a
    assert c != b
    y = pool.block(x[4:9])
    np.testing.assert_array_equal(y[:, c], layer(x[4:9])[0][:, c])
    np.testing.assert_array_equal(y[:, b], layer(x[:9])[0][4:, b])
    pool.add_stream()
    with pytest.raises(RuntimeError, match="all 3 rows of this stream are taken"):
        pool.add_stream()
    pool.remove_stream(b)
    with pytest.raises(ValueError, match=f"row is {b}, which no client has"):
        pool.remove_stream(b)


def test_warmup_changes_nothing(layer, x):
    stream = layer.stream(3)
    stream.block(x)
    before = stream.state
    stream.warmup()
    for now, old in zip(states(stream.state), before, strict=True):
        np.testing.assert_array_equal(now, old)
