"""The operators by themselves: what torch checks of any, and what they refuse."""

import pytest
import torch

from cases import TOLERANCE
from fastrnn.torch import packed
from own_torch import pair, torch_itself

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
T, B, I, H = 4, 3, 5, 6
OPERATORS = torch.ops.fastrnn


def operands(
    kind, dtype=torch.float32, is_packed=False, layers=2, bidirectional=True, low=None, **options
):
    """Arguments of `fastrnn::forward`, with masks between layers; parameters of type low."""
    made = getattr(torch.nn, kind)
    module = made(I, H, layers, bidirectional=bidirectional, dtype=low or dtype, **options)
    sizes = torch.tensor([3, 3, 2, 1]) if is_packed else None
    x = torch.randn((9, I) if is_packed else (T, B, I), dtype=dtype, requires_grad=True)
    D, P = 1 + bidirectional, options.get("proj_size") or H
    widths = [P, H] if kind == "LSTM" else [P]
    shapes = [(D * layers, B, width) for width in widths]
    states = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    drawn = torch.rand(layers - 1, *x.shape[:-1], D * P, dtype=dtype)
    masks = [*((drawn > 0.3) / 0.7).to(dtype)]
    return [x, states, masks, [*module.parameters()], sizes, module.mode, layers, bidirectional]


@pytest.mark.parametrize(
    ("kind", "dtype", "is_packed", "options"),
    [
        ("LSTM", torch.float32, True, {}),
        ("LSTM", torch.float32, False, {"low": torch.bfloat16}),
        ("GRU", torch.float32, True, {"low": torch.float16}),
        ("LSTM", torch.float32, False, {"proj_size": 2, "bias": False}),
        ("GRU", torch.float64, False, {"bidirectional": False}),
        ("RNN", torch.float32, True, {"nonlinearity": "relu", "layers": 1}),
    ],
    ids=str,
)
def test_torch_finds_nothing_wrong(kind, dtype, is_packed, options):
    given = operands(kind, dtype, is_packed, **options)
    torch.library.opcheck(OPERATORS.forward, given)
    given[:4] = given[0].detach(), *([one.detach() for one in part] for part in given[1:4])
    # But for the values at a tape's padding, which nobody writes.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS.record, given, test_utils=checks)
    y, final, tape = OPERATORS.record(*given)
    there = [True, False, True][: 1 + len(final)]
    results = zip([y, *final], there, strict=True)
    d_results = [torch.randn_like(one) for one, is_there in results if is_there]
    for inputs in (True, False):
        torch.library.opcheck(OPERATORS.backward, (d_results, there, inputs, tape, *given))


@pytest.mark.parametrize(
    ("place", "other", "message"),
    [
        (0, torch.zeros(T, I), r"x has shape \(4, 5\)"),
        (0, torch.zeros(0, B, I), "a step at least"),
        (0, torch.zeros(T, B, I + 1), r"weight_ih_l0 has shape \(24, 5\), wanted \(24, 6\)"),
        (0, torch.zeros(T, B, I).double(), "float64 on cpu beside torch.float32"),
        (0, torch.zeros(T, B, I).bfloat16(), "bfloat16 on cpu beside torch.float32"),
        (
            3,
            [*torch.nn.LSTM(I, H).double().parameters()] * 4,
            "float32 on cpu beside torch.float64",
        ),
        (3, [torch.zeros(4, 4, dtype=torch.int8)] * 16, "parameters are torch.int8, wanted one of"),
        (1, [torch.zeros(4, B, H)], "1 states, wanted 0 or 2"),
        (1, [torch.zeros(4, B, H), torch.zeros(4, B + 1, H)], "a state has shape"),
        (2, [torch.zeros(T, B, H)], "a mask has shape"),
        (2, [torch.zeros(T, B, 2 * H)] * 2, "2 masks, wanted 0 or 1"),
        (3, [torch.zeros(4 * H, I)], "1 parameters, wanted 8 or 12 or 16 or 20"),
        (4, torch.tensor([3, 3, 2, 1]), "x has shape"),
        (5, "CIFG", "mode is 'CIFG'"),
        (6, 0, "wanted 2 or 3"),
    ],
)
def test_what_does_not_fit_never_reaches_a_kernel(place, other, message):
    given = operands("LSTM")
    given[place] = other
    with torch.no_grad(), pytest.raises(RuntimeError, match=message):
        OPERATORS.forward(*given)


def test_packed_data_that_do_not_fit_never_reach_a_kernel():
    given = operands("GRU", is_packed=True)
    for sizes, message in (([3, 3, 3], "states are"), ([3, 3, 4, -1], "PackedSequence has 9")):
        given[4] = torch.tensor(sizes) if message != "states are" else torch.tensor([9])
        with torch.no_grad(), pytest.raises(RuntimeError, match=message):
            OPERATORS.forward(*given)


def test_a_tape_that_does_not_fit_never_reaches_a_kernel():
    given = operands("GRU")
    with torch.no_grad():
        y, _, tape = OPERATORS.record(*given)
        with pytest.raises(RuntimeError, match="saved of the tape has shape"):
            OPERATORS.backward([y], [True, False], True, [tape[0][1:], *tape[1:]], *given)
        with pytest.raises(RuntimeError, match="a gradient has shape"):
            OPERATORS.backward([y[1:]], [True, False], True, tape, *given)
        with pytest.raises(RuntimeError, match="1 gradients for results"):
            OPERATORS.backward([y], [True, True], True, tape, *given)


def test_packed_weights_end_with_the_parameters():
    given = operands("GRU")
    before = len(packed._of_storages)
    OPERATORS.forward(*given)
    assert len(packed._of_storages) == before + 1
    del given
    assert len(packed._of_storages) == before


@pytest.mark.filterwarnings("ignore:torch's own kernels run")
def test_derivatives_that_the_kernels_have_not_are_torchs():
    _, theirs = pair("LSTM", I, H, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)

    def ours(x):
        return OPERATORS.forward(x, [], [], [*theirs.parameters()], None, "LSTM", 1, False)

    found = []
    with torch_itself():
        for module in (ours, theirs):

            def first(x, module=module):
                return module(x)[0]

            leaf = x.clone().requires_grad_()
            (dx,) = torch.autograd.grad(first(leaf).square().sum(), leaf, create_graph=True)
            second = torch.autograd.grad(dx.square().sum(), [leaf, *theirs.parameters()])
            forward = torch.func.jvp(first, (x,), (x,))[1].detach()
            found.append([dx.detach(), forward, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE["float64"])
