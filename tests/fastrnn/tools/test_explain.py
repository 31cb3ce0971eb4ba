"""What `explain` tells of a call on the CPU; of the GPU's in test_cuda_choice.py."""

import numpy as np
import pytest

import fastrnn
from cases import make


@pytest.mark.smoke
def test_a_call_on_the_cpu_is_told():
    layer = make("LSTM", 8, 16, num_layers=2, device="cpu")
    found = fastrnn.explain(layer, np.zeros((5, 64, 8), np.float32), training=True)
    assert (found.device, found.reason) == ("cpu", "the layer was made with device='cpu'")
    passes = [(one.layer, one.backward) for one in found.passes]
    assert passes == [(0, False), (1, False), (0, True), (1, True)]
    assert {one.path for one in found.passes} == {"rows"}
    lines = str(found).splitlines()
    assert lines[0] == "on cpu: the layer was made with device='cpu'"
    assert lines[1].startswith("  layer 0 forward: rows, ")
    assert len(lines) == 5


def test_a_team_is_told():
    threads = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    try:
        found = fastrnn.explain(make("GRU", 512, 512, device="cpu"), np.zeros((5, 512), np.float32))
        assert found.passes[0].path == "team"
        assert "2 threads, each with units of its own" in str(found)
    finally:
        fastrnn.set_num_threads(threads)


def test_a_small_call_of_auto_is_the_cpus(monkeypatch):
    monkeypatch.setattr("fastrnn.device.gpu_kernels", lambda: object())
    cell = fastrnn.RNNCell(3, 4)
    found = fastrnn.explain(cell, np.zeros(3, np.float32))
    assert (found.device, found.reason) == (
        "cpu",
        "its products are too few for copies to the GPU to pay",
    )


def test_bad_arguments():
    layer = make("RNN-tanh", 3, 4)
    with pytest.raises(TypeError, match="layer is a Linear, wanted a recurrent layer or cell"):
        fastrnn.explain(fastrnn.Linear(3, 4), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"input \(T, B, I\) has I=5, this layer takes 3"):
        fastrnn.explain(layer, np.zeros((2, 2, 5), np.float32))
    with pytest.raises(TypeError, match="training is 1, wanted True or False"):
        fastrnn.explain(layer, np.zeros((2, 2, 3), np.float32), training=1)
