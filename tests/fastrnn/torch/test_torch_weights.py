"""Packed weights follow the parameters, and are not packed again where these stay."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch

from cases import TOLERANCE, assert_close
from fastrnn.torch import LSTM, GRUCell, packed
from own_torch import pair, torch_itself

T, B, I, H = 3, 2, 4, 5


@pytest.fixture
def packings(monkeypatch):
    """One entry for each time that weights are packed."""
    counted = []
    copies = packed.Copies

    def counting(*given):
        counted.append(given)
        return copies(*given)

    monkeypatch.setattr(packed, "Copies", counting)
    return counted


def in_place(p):
    with torch.no_grad():
        p.mul_(0.5)


def data_in_place(p):
    p.data.add_(1)


def data_replaced(p):
    p.data = torch.randn(p.shape)


def by_numpy(p):
    p.detach().numpy()[...] = 0.25


def by_init(p):
    torch.nn.init.constant_(p, 0.1)


def signs_in_place(p):
    p.data.neg_()


def two_values_swapped(p):
    p.data[:2] = p.data[:2].flip(0)


WRITES = [
    in_place, data_in_place, data_replaced, by_numpy, by_init, signs_in_place, two_values_swapped,
]  # fmt: skip


def outputs(module, theirs, x):
    with torch.no_grad():
        found = module(x)[0]
        theirs.load_state_dict(module.state_dict())
        with torch_itself():
            return found, theirs(x)[0]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_every_write_is_seen(write, name, packings):
    ours, theirs = pair("LSTM", I, H)
    x = torch.randn(T, B, I)
    before, _ = outputs(ours, theirs, x)
    write(getattr(ours, name))
    found, wanted = outputs(ours, theirs, x)
    assert not torch.equal(before, found)
    assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])
    assert len(packings) == 2


def test_a_large_weight_is_compared_to_its_end(packings):
    module = LSTM(64, 128)
    x = torch.randn(T, B, 64)
    with torch.no_grad():
        module(x)
        module(x)
        assert len(packings) == 1
        for at in (0, 1, 2047, 2048, 128 * 4 * 64 - 1):
            module.weight_ih_l0.data.view(-1)[at] += 1
            before = len(packings)
            module(x)
            assert len(packings) == before + 1


def test_unchanged_weights_are_packed_once(packings):
    module = LSTM(I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I)
    for _ in range(3):
        module(x)[0].sum().backward()
        module.eval()(x)
        with torch.inference_mode():
            module(x)
        module.train()
    assert len(packings) == 1


def test_an_optimisers_steps_are_seen(packings):
    ours, theirs = pair("GRU", I, H, 2)
    for step in range(5):
        x = torch.randn(T, B, I)
        losses = []
        for module in (ours, theirs):
            optimiser = torch.optim.SGD(module.parameters(), 0.5)
            with torch_itself():
                loss = module(x)[0].square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        assert len(packings) == step + 1


def test_load_state_dict_and_dtype_are_seen(packings):
    ours, theirs = pair("LSTM", I, H)
    x = torch.randn(T, B, I)
    ours(x)
    theirs.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    found, wanted = outputs(ours, theirs, x)
    assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])
    found, wanted = outputs(ours.double(), theirs.double(), x.double())
    assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float64"])
    found, _ = outputs(ours.float(), theirs.float(), x)
    assert found.dtype == torch.float32
    assert len(packings) == 4


def test_parameters_made_in_inference_mode_are_compared(packings):
    with torch.inference_mode():
        cell, x = GRUCell(I, H), torch.randn(B, I)
        before = cell(x)
        assert torch.equal(before, cell(x))
        assert len(packings) == 1
        cell.weight_ih.mul_(2)
        assert not torch.equal(before, cell(x))


def _raise_in_another_process(parameter):
    with torch.no_grad():
        parameter.add_(1)


def test_another_process_writes_shared_memory():
    module = LSTM(I, H).share_memory()
    x = torch.randn(T, B, I)
    with torch.no_grad():
        before = module(x)[0]
        process = multiprocessing.get_context("spawn").Process(
            target=_raise_in_another_process, args=(module.weight_hh_l0,)
        )
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert not torch.equal(before, module(x)[0])


def test_a_parameter_of_another_shape_never_reaches_a_kernel():
    module = LSTM(I, H)
    module.weight_hh_l0 = torch.nn.Parameter(torch.randn(4 * H, H - 1))
    with pytest.raises(RuntimeError, match=r"weight_hh_l0 has shape \(20, 4\), wanted \(20, 5\)"):
        module(torch.randn(T, B, I))


def test_weights_that_are_not_contiguous():
    ours, theirs = pair("RNN", I, H)
    ours.weight_hh_l0.data = ours.weight_hh_l0.data.t()
    for _ in range(2):
        found, wanted = outputs(ours, theirs, torch.randn(T, B, I))
        assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])


def test_a_copy_has_weights_of_its_own():
    module = LSTM(I, H)
    x = torch.randn(T, B, I)
    y = module(x)[0]
    other = copy.deepcopy(module)
    in_place(other.weight_ih_l0)
    assert not torch.equal(y, other(x)[0])
    assert torch.equal(y, module(x)[0])


def test_a_parameter_written_before_the_backward_pass_is_an_error_as_in_torch():
    module = LSTM(I, H)
    y, _ = module(torch.randn(T, B, I))
    in_place(module.weight_hh_l0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_data_written_before_the_backward_pass_leaves_it_whole():
    """Gradients are those of the forward pass that was run."""
    module = LSTM(I, H)
    x = torch.randn(T, B, I, requires_grad=True)
    (wanted,) = torch.autograd.grad(module(x)[0].sum(), x)
    module.weight_hh_l0.data = module.weight_hh_l0.data.clone()  # so that it is packed anew
    y, _ = module(x)
    by_numpy(module.weight_hh_l0)
    (found,) = torch.autograd.grad(y.sum(), x)
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())
