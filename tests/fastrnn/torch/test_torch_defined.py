"""Modules of defined cells beside plain loops of torch's over time, and beside torch's own GRU."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastrnn
from fastrnn.cells import MGU, MinGRU, PeepholeLSTM
from fastrnn.equations import sigmoid, tanh
from own_torch import torch_itself

T, B, I, H = 5, 3, 4, 6
#: Sums of some ten products in another order, through two layers.
TOLERANCE = 2e-6


@fastrnn.cell(gates="r z n")
def OwnGRU(a, s):
    """Torch's GRU."""
    r = sigmoid(a.r)
    z = sigmoid(a.z)
    n = tanh(a.n.x + r * a.n.h)
    return (1 - z) * n + z * s.h


def peephole_lstm(w, x, h, c):
    a = x @ w["weight_ih"].T + w.get("bias_ih", 0) + h @ w["weight_hh"].T + w.get("bias_hh", 0)
    i, f, g, o = a.chunk(4, -1)
    i, f = torch.sigmoid(i + w["p_i"] * c), torch.sigmoid(f + w["p_f"] * c)
    c = f * c + i * torch.tanh(g)
    return torch.sigmoid(o + w["p_o"] * c) * torch.tanh(c), c


def mgu(w, x, h):
    x_f, x_n = (x @ w["weight_ih"].T + w.get("bias_ih", 0)).chunk(2, -1)
    (R_f, R_n), b = w["weight_hh"].chunk(2), w.get("bias_hh", torch.zeros(2, dtype=x.dtype))
    b_f, b_n = b.chunk(2)
    f = torch.sigmoid(x_f + h @ R_f.T + b_f)
    return ((1 - f) * h + f * torch.tanh(x_n + (f * h) @ R_n.T + b_n),)


def min_gru(w, x, h):
    z, n = (x @ w["weight_ih"].T + w.get("bias_ih", 0)).chunk(2, -1)
    z = torch.sigmoid(z)
    return ((1 - z) * h + z * n,)


STEPS = {PeepholeLSTM: peephole_lstm, MGU: mgu, MinGRU: min_gru}
CELLS = pytest.mark.parametrize("cell", STEPS, ids=lambda cell: cell.kind)


def loop(module, x, states):
    """y (T, B, D H) and the final states, by a plain loop over time."""
    step, names = STEPS[module.of], dict(module.named_parameters())
    ends = []
    for layer in range(module.num_layers):
        ys = []
        for d, suffix in enumerate(("", "_reverse")[: module._directions]):
            end = f"_l{layer}{suffix}"
            w = {k.removesuffix(end): p for k, p in names.items() if k.endswith(end)}
            now = [one[layer * module._directions + d] for one in states]
            y = [None] * len(x)
            for t in range(len(x)) if d == 0 else reversed(range(len(x))):
                now = step(w, x[t], *now)
                y[t] = now[0]
            ys.append(torch.stack(y))
            ends.append(now)
        x = torch.cat(ys, -1)
    return x, [torch.stack(part) for part in zip(*ends, strict=True)]


def zeros(module):
    many = module.num_layers * module._directions
    return [torch.zeros(many, B, H) for _ in module._cell.states]


def listed(hx):
    return [*hx] if isinstance(hx, tuple) else [hx]


def joined(states):
    return tuple(states) if len(states) > 1 else states[0]


def pair(cell, dtype=torch.float32, **options):
    """A module and an input."""
    module = cell.torch(I, H, **options, dtype=dtype)
    return module, torch.randn(T, B, I, dtype=dtype)


@CELLS
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_loop(cell, bias):
    module, x = pair(cell, num_layers=2, bidirectional=True, bias=bias)
    x.requires_grad_()
    states = [torch.randn_like(one).requires_grad_() for one in zeros(module)]
    given = x, *states, *module.parameters()
    wanted = loop(module, x, states)
    wanted = [wanted[0], *wanted[1]]
    weights = [torch.randn_like(one) for one in wanted]
    d_wanted = torch.autograd.grad(wanted, given, weights)
    for _ in range(3):  # from the second one on prepared
        y, final = module(x, joined(states))
        found = [y, *listed(final)]
        d_found = torch.autograd.grad(found, given, weights)
        for one, other in zip((*found, *d_found), (*wanted, *d_wanted), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=10 * TOLERANCE)


@CELLS
def test_bits_are_those_of_the_layer_and_state_dicts_go_both_ways(cell):
    module, x = pair(cell, num_layers=2, bidirectional=True)
    layer = cell(I, H, num_layers=2, bidirectional=True)
    assert list(layer.state_dict()) == list(module.state_dict())
    layer.load_state_dict({name: one.numpy() for name, one in module.state_dict().items()})
    y, final, tape = layer.forward(x.numpy())
    gradients = layer.backward(tape, np.ones_like(y))
    for _ in range(3):
        module.zero_grad()
        found, ends = module(x)
        found.sum().backward()
        np.testing.assert_array_equal(found.detach().numpy(), y)
        for one, other in zip(listed(ends), listed(final), strict=True):
            np.testing.assert_array_equal(one.detach().numpy(), other)
        for name, one in module.named_parameters():
            np.testing.assert_array_equal(one.grad.numpy(), gradients.parameters[name])
    other = cell(I, H, num_layers=2, bidirectional=True, seed=3)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in other.state_dict().items()})
    with torch.no_grad():
        np.testing.assert_array_equal(module(x)[0].numpy(), other(x.numpy())[0])


def test_a_gru_by_hand_is_the_gru_of_torch():
    own = torch.nn.GRU(I, H, num_layers=2, bidirectional=True)
    module, x = pair(OwnGRU, num_layers=2, bidirectional=True)
    module.load_state_dict(own.state_dict())
    x.requires_grad_()
    with torch_itself():
        wanted, end = own(x)
        wanted.sum().backward()
    d_wanted, x.grad = x.grad, None
    y, final = module(x)
    y.sum().backward()
    for one, other in [(y, wanted), (final, end), (x.grad, d_wanted)]:
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
    for one, other in zip(module.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=2e-5)


def test_parameters_are_drawn_as_those_of_torch():
    torch.manual_seed(5)
    own = torch.nn.GRU(I, H, num_layers=2, bidirectional=True)
    torch.manual_seed(5)
    module = OwnGRU.torch(I, H, num_layers=2, bidirectional=True)
    for (name, one), (its, other) in zip(
        module.named_parameters(), own.named_parameters(), strict=True
    ):
        assert name == its
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", [PeepholeLSTM, MGU], ids=lambda cell: cell.kind)
def test_first_and_second_derivatives(cell):
    module, x = pair(cell, torch.float64, bidirectional=True)
    x.requires_grad_()
    given = x, *module.parameters()

    def run(x, *_):
        y, final = module(x)
        return y, *listed(final)

    assert torch.autograd.gradcheck(run, given)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch's own kernels run: .*first derivatives")
        assert torch.autograd.gradgradcheck(lambda x, *_: module(x)[0].sum(), given)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch, in jvp
def test_transforms():
    module, x = pair(PeepholeLSTM)
    parameters = dict(module.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(module, parameters, (x,))[0].square().sum()

    rows = torch.stack([x, 2 * x])
    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, rows)
    for k, row in enumerate(rows):
        module.zero_grad()
        module(row)[0].square().sum().backward()
        for name, one in module.named_parameters():
            torch.testing.assert_close(found[name][k], one.grad)
    with pytest.warns(UserWarning, match="derivatives in reverse mode alone"):
        _, forward = torch.func.jvp(lambda x: module(x)[0], (x,), (torch.ones_like(x),))
    difference = (module(x + 1e-2)[0] - module(x - 1e-2)[0]) / 2e-2
    torch.testing.assert_close(forward, difference.detach(), rtol=0, atol=1e-3)


@CELLS
@pytest.mark.parametrize("sort", [True, False])
def test_packed_sequences(cell, sort):
    module, x = pair(cell, num_layers=2, bidirectional=True)
    lengths = [5, 3, 1] if sort else [3, 5, 1]
    states = [torch.randn_like(one) for one in zeros(module)]
    y, final = module(pack_padded_sequence(x, lengths, enforce_sorted=sort), joined(states))
    assert isinstance(y, PackedSequence)
    y, _ = pad_packed_sequence(y)
    for b, length in enumerate(lengths):
        row = x[:length, b : b + 1], joined([one[:, b : b + 1] for one in states])
        wanted, ends = module(*row)
        assert torch.equal(y[:length, b : b + 1], wanted)
        for one, other in zip(listed(final), listed(ends), strict=True):
            assert torch.equal(one[:, b : b + 1], other)
    own, its = module._own_forward(pack_padded_sequence(x, lengths, enforce_sorted=sort), None)
    y, final = module(pack_padded_sequence(x, lengths, enforce_sorted=sort))
    torch.testing.assert_close(own.data, y.data, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(its, final, rtol=0, atol=TOLERANCE)


@CELLS
def test_layouts(cell):
    module, x = pair(cell, num_layers=2, bidirectional=True)
    first = cell.torch(I, H, num_layers=2, bidirectional=True, batch_first=True)
    first.load_state_dict(module.state_dict())
    y, final = module(x)
    for _ in range(2):
        swapped, its = first(x.transpose(0, 1).contiguous())
        assert torch.equal(swapped.transpose(0, 1), y)
        assert all(map(torch.equal, listed(its), listed(final)))
    row, its = module(x[:, 1])
    assert torch.equal(row, y[:, 1])
    assert all(torch.equal(one, other[:, 1]) for one, other in zip(listed(its), listed(final)))  # noqa: B905


@CELLS
def test_a_sequence_may_be_cut(cell):
    module, x = pair(cell)
    y, final = module(x)
    first, state = module(x[:2])
    second, ends = module(x[2:], state)
    assert torch.equal(torch.cat([first, second]), y)
    assert all(map(torch.equal, listed(ends), listed(final)))


@CELLS
def test_single_steps(cell):
    step = cell.Cell.torch(I, H)
    module, x = pair(cell)
    weights = {name.removesuffix("_l0"): one for name, one in module.state_dict().items()}
    step.load_state_dict(weights)
    y, final = module(x)
    state = None
    for t in range(T):
        state = step(x[t], state)
        assert torch.equal(listed(state)[0], y[t])
    assert all(torch.equal(one, other[0]) for one, other in zip(listed(state), listed(final)))  # noqa: B905
    assert torch.equal(listed(step(x[0, 0]))[0], y[0, 0])
    assert torch.allclose(listed(step._own_forward(x[0], None))[0], y[0], atol=1e-6)
    assert cell.Cell.torch(I, H, bias=False).bias_ih is None


def test_what_needs_no_gradient():
    module, x = pair(PeepholeLSTM)
    module.weight_hh_l0.requires_grad_(False)
    module.p_f_l0.requires_grad_(False)
    module(x)[0].sum().backward()
    assert x.grad is module.weight_hh_l0.grad is module.p_f_l0.grad is None
    assert module.p_i_l0.grad.any()
    with torch.no_grad():
        assert not module(x)[0].requires_grad


def test_changed_parameters_of_units_are_seen():
    module, x = pair(PeepholeLSTM)
    with torch.no_grad():
        before = [module(x)[0] for _ in range(3)][-1]
        module.p_o_l0.data += 1
        after = module(x)[0]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, loop(module, x, zeros(module))[0], rtol=0, atol=2e-6)


@CELLS
def test_training_lowers_the_loss(cell):
    module, x = pair(cell, num_layers=2, dropout=0.1)
    target = torch.randn(T, B, H)
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append((module(x)[0] - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


@CELLS
def test_copies_and_pickles(cell):
    module, x = pair(cell, num_layers=2)
    y, _ = module(x)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies.append(torch.load(file, weights_only=False))
    for one in copies:
        assert type(one) is type(module)
        assert torch.equal(one(x)[0], y)
        with torch.no_grad():
            one.weight_ih_l0.zero_()
    assert torch.equal(module(x)[0], y)
    step = cell.Cell.torch(I, H)
    assert type(pickle.loads(pickle.dumps(step))) is type(step)
    assert cell.torch(2, 3).__class__ is type(module)


def test_a_pickle_of_other_equations_is_refused():
    module = OwnGRU.torch(I, H)
    written = pickle.dumps(module).replace(module.mode.encode(), b"OwnGRU-" + b"0" * 16)
    with pytest.raises(ValueError, match=r"OwnGRU-0000000000000000.*define it as it was"):
        pickle.loads(written)


def test_moved_and_cast():
    module, x = pair(PeepholeLSTM)
    y, _ = module(x)
    torch.testing.assert_close(
        copy.deepcopy(module).double()(x.double())[0], y.double(), rtol=0, atol=2e-6
    )
    for dtype in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(module).to(dtype)
        found, (h, c) = low(x.to(dtype))
        assert found.dtype is h.dtype is c.dtype is dtype
        torch.testing.assert_close(found.float(), y, rtol=0, atol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        found, (h, c) = module(x)
        own, (its_h, its_c) = module._own_forward(x, None)
    assert (found.dtype, h.dtype, c.dtype) == (own.dtype, its_h.dtype, its_c.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        empty = copy.deepcopy(module).to("meta")(x.to("meta"))[0]
    assert empty.shape == y.shape
    assert empty.is_meta
    assert torch.equal(module.share_memory()(x)[0], y)


def test_hooks_and_a_second_thread_of_the_same_parameters():
    module, x = pair(MGU)
    seen = []
    handle = module.register_forward_hook(lambda _, given, result: seen.append(result[0]))
    y, _ = module(x)
    handle.remove()
    assert seen[0] is y
    replica = module._replicate_for_data_parallel()
    for name, one in module.named_parameters():
        setattr(replica, name, one * 1)
    assert torch.equal(replica(x)[0], y)


@CELLS
def test_compiled_and_exported(cell):
    module, x = pair(cell, num_layers=2, bidirectional=True)
    y, _ = module(x)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    for run in (compiled, module):
        module.zero_grad()
        found, _ = run(x)
        assert torch.equal(found, y)
        found.sum().backward()
        gradients = [one.grad for one in module.parameters()]
        if run is compiled:
            first = gradients
    assert all(map(torch.equal, first, gradients))
    exported = torch.export.export(module, (x.detach(),))
    names = [str(node.target) for node in exported.graph.nodes]
    assert "fastrnn.forward.default" in names
    assert torch.equal(exported.module()(x.detach())[0], y)


PROGRAM = """
import sys, torch, fastrnn.torch
program = torch.export.load(sys.argv[1])
torch.save(program.module()(*program.example_inputs[0])[0], sys.argv[2])
"""


def test_an_exported_program_finds_its_cell_in_another_process(tmp_path):
    module, x = pair(PeepholeLSTM)
    paths = str(tmp_path / "program.pt2"), str(tmp_path / "y.pt")
    torch.export.save(torch.export.export(module, (x,)), paths[0])
    subprocess.run([sys.executable, "-c", PROGRAM, *paths], check=True)
    assert torch.equal(torch.load(paths[1]), module(x)[0])


def test_traces_are_of_operations_of_torch_and_scripts_are_refused():
    module, x = pair(MGU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, x)
        assert torch.allclose(traced(x)[0], module(x)[0], atol=1e-6)
        with pytest.raises(RuntimeError, match="cannot compile the equations of MGU"):
            torch.jit.script(torch.nn.Sequential(module))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.zeros(T, B, I + 1),), RuntimeError, "input.size"),
        ((torch.zeros(T, B, I, dtype=torch.float64),), ValueError, "dtype"),
        ((torch.zeros(1, T, B, I),), ValueError, "PeepholeLSTM: Expected input to be 2D or 3D"),
        ((torch.zeros(0, B, I),), RuntimeError, "larger than 0"),
        ((torch.zeros(T, B, I), torch.zeros(1, B, H)), RuntimeError, r"wanted a tuple \(h, c\)"),
        ((torch.zeros(T, B, I), (torch.zeros(1, B, H), None)), TypeError, r"hx\[1\] is a NoneType"),
        ((torch.zeros(T, B, I), [torch.zeros(1, B, H)] * 3), RuntimeError, "of 3, wanted"),
        ((torch.zeros(T, B, I), [torch.zeros(B, H)] * 2), RuntimeError, "hx should be 3-D"),
        ((torch.zeros(T, B, I), [torch.zeros(2, B, H)] * 2), RuntimeError, "Expected hidden"),
    ],
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=words):
        PeepholeLSTM.torch(I, H)(*arguments)


def test_errors_of_arguments_are_those_of_torch():
    for options in ({"hidden_size": 0}, {"hidden_size": 2, "dropout": 3}):
        with pytest.raises(ValueError) as wanted:  # noqa: PT011
            torch.nn.LSTM(2, **options)
        with pytest.raises(ValueError) as found:  # noqa: PT011
            PeepholeLSTM.torch(2, **options)
        assert str(found.value) == str(wanted.value)
    with pytest.raises(TypeError):
        PeepholeLSTM.torch(2, 3, proj_size=1)
