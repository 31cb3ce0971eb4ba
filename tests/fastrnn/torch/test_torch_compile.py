"""torch.compile has fastrnn's modules in its graphs, as one operator each.

What is compiled gives what is given outside of graphs, bit for bit: the operations around it are
run one by one here, but where a test says so.
"""

import shutil

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import fastrnn.torch
from fastrnn.torch import packed
from fastrnn.torch.operands import tapes
from fastrnn_kernels.cpu.product.weights import lanes_of
from graphs_torch import Model, assert_equal, differentiated
from own_torch import pair, torch_itself

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
T, B, I, H = 4, 3, 5, 6
CASES = {
    "LSTM": ("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.4}, (T, B, I)),
    "batch first": ("GRU", {"batch_first": True, "bias": False}, (B, T, I)),
    "unbatched": ("RNN", {"bidirectional": True}, (T, I)),
    "projected": ("LSTM", {"proj_size": 2, "dtype": torch.float64}, (T, B, I)),
    "cell": ("LSTMCell", {}, (B, I)),
    "unbatched cell": ("GRUCell", {"bias": False}, (I,)),
}


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_is_one_graph(name):
    kind, options, shape = CASES[name]
    model = Model(getattr(fastrnn.torch, kind)(I, H, **options))
    x = torch.randn(shape, dtype=options.get("dtype"), requires_grad=True)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_equal(differentiated(compiled, x), differentiated(model, x))
    found = []
    for run in (compiled, model):
        torch.manual_seed(3)
        with torch.no_grad():
            found.append(run(x))
    assert_equal(*found)


def test_one_graph_serves_all_sizes():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model = Model(fastrnn.torch.LSTM(I, H, batch_first=True))
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    compilations = set()
    for steps, rows in ((3, 9), (8, 4), (5, 7)):
        x = torch.randn(rows, steps, I, requires_grad=True)
        state = tuple(torch.randn(1, rows, H, requires_grad=True) for _ in range(2))
        assert_equal(differentiated(compiled, x, state), differentiated(model, x, state))
        compilations.add(counter.frame_count)
    assert len(compilations) == 1


def test_caches_of_graphs_tell_processors_apart():
    """A tape that was written for another one has other sizes."""
    graphs = torch._dynamo.testing.EagerAndRecordGraphs()
    torch.compile(fastrnn.torch.GRU(I, H), backend=graphs)(torch.randn(T, B, I))
    (node,) = [one for one in graphs.graphs[0].graph.nodes if "fastrnn" in str(one.target)]
    assert node.args[-2] == tapes()
    assert tapes().endswith(f"-{lanes_of(np.dtype(np.float32))}")


@pytest.mark.parametrize(
    ("name", "way", "low"),
    [
        ("LSTM", "autocast", torch.bfloat16),
        ("LSTM", "autocast in the graph", torch.float16),
        ("LSTM", "module", torch.bfloat16),
        ("batch first", "autocast in the graph", torch.bfloat16),
        ("unbatched", "module", torch.float16),
        ("cell", "autocast", torch.bfloat16),
        ("cell", "module", torch.float16),
    ],
)
def test_lower_precision_stays_in_the_graph(name, way, low):
    kind, options, shape = CASES[name]
    model = Model(getattr(fastrnn.torch, kind)(I, H, **options))
    x = torch.randn(shape)
    if way == "module":
        model, x = model.to(low), x.to(low)
    x.requires_grad_()

    def within(x):
        with torch.autocast("cpu", low):
            return model(x)

    of = within if way == "autocast in the graph" else model
    compiled = torch.compile(of, backend="aot_eager", fullgraph=True)
    found = []
    with torch.autocast("cpu", low, enabled=way == "autocast"):
        for run in (compiled, of):
            torch.manual_seed(3)
            results = run(x)
            loss = sum(one.square().sum() for one in results)
            found.append([*results, *torch.autograd.grad(loss, [x, *model.parameters()])])
            with torch.no_grad():
                torch.manual_seed(3)
                found[-1] += run(x)
    assert [one.dtype for one in found[0]] == [one.dtype for one in found[1]]
    assert_equal(*found)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # that a graph hands on
@pytest.mark.parametrize("way", ["autocast", "module"])
def test_packed_sequences_of_lower_precision(way):
    model = Model(fastrnn.torch.LSTM(I, H, 2, bidirectional=True))
    x = torch.randn(T, B, I)
    if way == "module":
        model, x = model.bfloat16(), x.bfloat16()
    rows = pack_padded_sequence(x, [2, 4, 1], enforce_sorted=False)
    rows.data.requires_grad_()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found, wanted = (differentiated(one, rows) for one in (compiled, model))
    assert found[0].dtype is (torch.float32 if way == "autocast" else torch.bfloat16)
    assert_equal(found, wanted)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # that a graph hands on
@pytest.mark.parametrize("form", ["sorted", "unsorted", "sorted, of any number"])
def test_packed_sequences(form):
    """Only the values of batch_sizes tell how many sorted ones there are."""
    model, is_sorted = Model(fastrnn.torch.LSTM(I, H, 2, bidirectional=True)), form != "unsorted"
    lengths = [4, 2, 1] if is_sorted else [2, 4, 1]
    rows = pack_padded_sequence(torch.randn(T, B, I), lengths, enforce_sorted=is_sorted)
    rows.data.requires_grad_()
    with torch._dynamo.config.patch(capture_scalar_outputs="number" in form):
        whole = form != "sorted"
        compiled = torch.compile(model, backend="aot_eager", fullgraph=whole)
        assert_equal(differentiated(compiled, rows), differentiated(model, rows))


def test_weights_are_packed_once_and_follow_every_write(monkeypatch):
    packings, copies = [], packed.Copies
    monkeypatch.setattr(packed, "Copies", lambda *given: packings.append(1) or copies(*given))
    layer = fastrnn.torch.LSTM(I, H)
    compiled, x = torch.compile(Model(layer), backend="aot_eager"), torch.randn(T, B, I)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(2):
        compiled(x)[0].sum().backward()
        with torch.no_grad():
            before = compiled(x)
    assert len(packings) == 1
    for write in (
        optimiser.step,
        lambda: layer.weight_hh_l0.data.mul_(2),
        lambda: layer.bias_ih_l0.detach().numpy().fill(0.5),
        lambda: layer.load_state_dict(fastrnn.torch.LSTM(I, H).state_dict()),
    ):
        packings.clear()
        write()
        with torch.no_grad():
            after = compiled(x)
            assert len(packings) == 1
            assert not torch.equal(before[0], after[0])
            assert_equal(after, Model(layer)(x))
        before = after


def test_checkpoints_are_computed_again():
    layer = fastrnn.torch.GRU(I, H)

    def run(x):
        return checkpoint(lambda x: torch.relu(layer(x)[0]), x, use_reentrant=False)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    x, found = torch.randn(T, B, I, requires_grad=True), []
    for function in (compiled, run):
        found.append(torch.autograd.grad(function(x).sum(), [x, *layer.parameters()]))
    assert_equal(*found)


def test_transforms_of_torch_func():
    """Those that differentiate leave the graph: none knows derivatives of others' operators."""
    layer = fastrnn.torch.LSTM(I, H)
    parameters, xs = dict(layer.named_parameters()), torch.randn(2, T, B, I)

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,))[0].square().sum()

    def mapped(xs):
        return vmap(lambda x: layer(x)[0])(xs)

    def of_each(xs):
        return vmap(grad(loss), in_dims=(None, 0))(parameters, xs)

    with torch.no_grad():
        compiled = torch.compile(mapped, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(xs), mapped(xs))
    found = torch.compile(of_each, backend="aot_eager")(xs)
    assert_equal(found.values(), of_each(xs).values())


@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
def test_fallbacks_are_torchs(kind):
    """Layers leave the graph, as torch's own do; cells stay, as torch's own do."""
    dtype = torch.complex64
    ours, theirs = pair(kind, I, H, dtype=dtype)
    whole = kind == "GRUCell"
    x = torch.randn((B, I) if whole else (T, B, I), dtype=dtype)
    with torch_itself(), torch.no_grad():
        compiled = torch.compile(ours, backend="aot_eager", fullgraph=whole)
        with pytest.warns(UserWarning, match="torch's own kernels run"):
            found = compiled(x)
        torch.testing.assert_close(found[0], theirs(x)[0])


def test_torchs_own_layers_are_left_alone():
    plain = torch.compile(torch.nn.LSTM(I, H), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="LSTM"):
        plain(torch.randn(T, B, I))


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler of C++")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_inductor(mode):
    """Whose own operations round otherwise."""
    model = Model(fastrnn.torch.LSTM(I, H, 2, batch_first=True))
    compiled = torch.compile(model, mode=mode, fullgraph=True)
    x = torch.randn(B, T, I, requires_grad=True)
    for one, other in zip(differentiated(compiled, x), differentiated(model, x), strict=True):
        torch.testing.assert_close(one, other)
