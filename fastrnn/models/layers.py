"""The layers: RNN, LSTM and GRU over whole sequences."""

from collections.abc import Sequence
from typing import Any

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.layer import Layer
from fastrnn_kernels.tape import Tape as PassTape


class RNN(Layer[Array]):
    """The simple recurrent network (Elman), as `torch.nn.RNN`.

        h_t = φ(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh),  φ = tanh or ReLU

    J. L. Elman, "Finding Structure in Time" (1990).

    Parameters of layer k, with `_reverse` added for the other direction: weight_ih_lk
    (H, I; D * H above the first layer), weight_hh_lk (H, H), bias_ih_lk and bias_hh_lk (H,).

    nonlinearity: φ, "tanh" or "relu".
    activation: φ in its place, any that `LSTM` takes. Other arguments as those of `LSTM`.
    """

    kind = "RNN"
    activation: Any
    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        activation: Any = None,
        initial_state: str = "zeros",
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers,
            nonlinearity=nonlinearity, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, device=device, dtype=dtype,
            activation=activation, initial_state=initial_state,
            input_dropout=input_dropout, recurrent_dropout=recurrent_dropout,
            recurrent_dropout_on=recurrent_dropout_on, zoneout=zoneout,
            weight_dropout=weight_dropout,
            blocks=blocks, norm=norm,
        )  # fmt: skip
        self._draw(seed)


class LSTM(Layer[tuple[Array, Array]]):
    """Long short-term memory, as `torch.nn.LSTM`.

        i, f, o = σ(W x_t + b_ih + R h_(t-1) + b_hh)      each with its own rows
        g = tanh(W x_t + b_ih + R h_(t-1) + b_hh)
        c_t = f c_(t-1) + i g
        h_t = o tanh(c_t), or W_hr (o tanh(c_t)) with proj_size

    S. Hochreiter, J. Schmidhuber (1997), Sec. 4; F. A. Gers et al. (2000), Sec. 3; the projection
    after H. Sak, A. Senior, F. Beaufays, arXiv:1402.1128, Sec. 2.

    Parameters of layer k, with `_reverse` added for the other direction, rows in the order
    i, f, g, o: weight_ih_lk (4 H, I; D * P above the first layer), weight_hh_lk (4 H, P),
    bias_ih_lk and bias_hh_lk (4 H,), weight_hr_lk (P, H) with proj_size; p_i_lk, p_f_lk and p_o_lk
    (H,) with peepholes; initial_h_lk (P,) and initial_c_lk (H,) if the initial state is learned.

    input_size, hidden_size: I and H.
    num_layers: layers of the stack; bidirectional: run each in both directions.
    bias: False leaves the biases out.
    batch_first: x and y are (B, T, ...), states stay as they are.
    dropout: probability of a zero between layers, in `forward` with training=True.
    proj_size: P, less than H; 0 for no projection.
    activation, recurrent_activation: in place of tanh and of σ. Keras's by name, as "relu",
        "hard_sigmoid", "softsign", "elu", "selu", "gelu", "silu", "softplus", "mish",
        "leaky_relu", "linear", or (name, parameters), as ("elu", 0.5); ("tanh", 1.7159, 2 / 3) is
        1.7159 tanh(2/3 x). Such a cell is compiled when it is first used, once for a machine.
    peepholes: have i and f see c_(t-1), and o see c_t: i = σ(... + p_i c_(t-1)); F. A. Gers,
        N. N. Schraudolph, J. Schmidhuber (2002), Sec. 2.2.
    input_dropout: probability that a feature of a layer's input is 0 for a whole sequence.
    recurrent_dropout: that a unit of h is, wherever R multiplies it; Y. Gal, Z. Ghahramani,
        arXiv:1512.05287, Sec. 4. recurrent_dropout_on: "h", or "candidate": g is 0 at single steps,
        and h is left; S. Semeniuta et al., arXiv:1603.05118, Sec. 3.
    zoneout: probability that a unit keeps its h at a step, or of each state, as (0.1, 0.5) of h and
        c; D. Krueger et al., arXiv:1606.01305, Sec. 3.
    weight_dropout: probability that a weight of weight_hh is 0 for a call; S. Merity et al.,
        arXiv:1708.02182, Sec. 2. All these are for training: see `forward`.
    initial_state: "zeros", or "learned": parameters, zeros at first, that states begin from
        wherever none is given, in streams and exported C as well.
    blocks: n, for a block-diagonal R: the units are n groups of H / n, and those of a group see h
        of their own group alone, as the heads of the sLSTM do (M. Beck et al., arXiv:2405.04517,
        Sec. 2.2). weight_hh_lk is then (4 H, H / n), and costs an n-th. Not with proj_size.
    norm: "layer" or "rms": W x and R h are normalised before they are added, each over the units of
        all gates (J. L. Ba, J. R. Kiros, G. E. Hinton, arXiv:1607.06450, Sec. 3.1 and
        supplement; B. Zhang, R. Sennrich, arXiv:1910.07467, eq. 4), with gains norm_ih_lk and
        norm_hh_lk (4 H,), ones at first: norm_ih LN(W x_t) + b_ih + norm_hh LN(R h_(t-1)) + b_hh.
        On the CPU alone, and not with proj_size.
    device: "auto", "cpu" or "cuda".
    dtype: "float32" or "float64". For inference also "bfloat16", and "float16" on the GPU: the
        products are of that type then, all else is float32.
    seed: of the initial weights, U(-1/√H, 1/√H), and of dropout.

    Raises TypeError or ValueError for wrong arguments, RuntimeError for a device that
    cannot be used.
    """

    kind = "LSTM"
    activation: Any
    recurrent_activation: Any
    peepholes: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        peepholes: bool = False,
        initial_state: str = "zeros",
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, bias=bias,
            batch_first=batch_first, dropout=dropout, bidirectional=bidirectional,
            proj_size=proj_size, device=device, dtype=dtype,
            activation=activation, recurrent_activation=recurrent_activation,
            peepholes=peepholes, initial_state=initial_state,
            input_dropout=input_dropout, recurrent_dropout=recurrent_dropout,
            recurrent_dropout_on=recurrent_dropout_on, zoneout=zoneout,
            weight_dropout=weight_dropout,
            blocks=blocks, norm=norm,
        )  # fmt: skip
        self._draw(seed)

    def _configure(self, *, proj_size: int, **common: Any) -> None:
        self.proj_size = check.size("proj_size", proj_size, least=0)
        hidden_size = check.size("hidden_size", common["hidden_size"])
        if self.proj_size >= hidden_size:
            raise ValueError(
                f"proj_size is {proj_size}, wanted less than hidden_size = {hidden_size}"
            )
        self._set_up_stack(**self._take_options(common))

    def _gates(self, one: PassTape[Any], xp: Any) -> dict[str, Array]:
        gates = super()._gates(one, xp)
        if not {"i", "f", "g"} <= gates.keys():
            return gates
        c_old = xp.zeros_like(gates["i"])
        H, running = self.hidden_size, one.rows.running
        c_old.reshape(-1, H)[running] = one.old_rest.reshape(-1, one.old_rest.shape[3])[running, :H]
        g = self._left_of_candidate(one, "g", gates["g"], xp)
        gates["c"] = self._left_by_zoneout(one, "c", gates["f"] * c_old + gates["i"] * g, c_old, xp)
        return gates


class GRU(Layer[Array]):
    """Gated recurrent units, as `torch.nn.GRU`.

        r, z = σ(W x_t + b_ih + R h_(t-1) + b_hh)         each with its own rows
        n = tanh(W_n x_t + b_in + r (R_n h_(t-1) + b_hn))     reset_after=True, as torch
        n = tanh(W_n x_t + b_in + R_n (r h_(t-1)) + b_hn)     reset_after=False
        h_t = (1 - z) n + z h_(t-1)

    K. Cho et al., arXiv:1406.1078, Sec. 2.3, eqs. 5 to 8.

    Parameters of layer k, with `_reverse` added for the other direction, rows in the order
    r, z, n: weight_ih_lk (3 H, I; D * H above the first layer), weight_hh_lk (3 H, H),
    bias_ih_lk and bias_hh_lk (3 H,).

    reset_after: whether the reset gate acts after the product with h or before it.
    activation, recurrent_activation: in place of tanh and of σ, as `LSTM` has them. Other arguments
    as those of `LSTM`.
    """

    kind = "GRU"
    activation: Any
    recurrent_activation: Any
    reset_after: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        initial_state: str = "zeros",
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, bias=bias,
            batch_first=batch_first, dropout=dropout, bidirectional=bidirectional,
            reset_after=reset_after, device=device, dtype=dtype,
            activation=activation, recurrent_activation=recurrent_activation,
            initial_state=initial_state,
            input_dropout=input_dropout, recurrent_dropout=recurrent_dropout,
            recurrent_dropout_on=recurrent_dropout_on, zoneout=zoneout,
            weight_dropout=weight_dropout,
            blocks=blocks, norm=norm,
        )  # fmt: skip
        self._draw(seed)
