"""Keras models: `.keras` archives, and `.weights.h5` files; Keras itself is not needed.

Read are chains of SimpleRNN, LSTM, GRU, Bidirectional, Dense and TimeDistributed(Dense), whose
activations are those of fastrnn's layers. Layers take the batch first, as Keras's do, and give y
at all steps.
"""

from collections.abc import Iterator
from typing import Any

from fastrnn.files import budget, hdf5, json
from fastrnn.files.errors import MisfitError
from fastrnn.files.gates import from_format
from fastrnn.files.hdf5 import Group
from fastrnn.files.zip import Archive
from fastrnn.models.layers import GRU, LSTM, RNN
from fastrnn.models.linear import ACTIVATIONS, Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights.state_dict import config_of, linear_config
from fastrnn_kernels import handlers

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
#: Layers by the names of their classes, and the gates of each.
KINDS: dict[str, tuple[Any, int]] = {"SimpleRNN": (RNN, 1), "LSTM": (LSTM, 4), "GRU": (GRU, 3)}
#: What does nothing in inference.
_IDLE = ("InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise", "ActivityRegularization")
#: What there is to read, and how it is called in files.
_SNAKES = {
    "SimpleRNN": "simple_rnn", "LSTM": "lstm", "GRU": "gru", "Bidirectional": "bidirectional",
    "Dense": "dense", "TimeDistributed": "time_distributed",
}  # fmt: skip


def load(path: str, device: str = "auto") -> Any:
    """The layer of a file that has one, else a Sequential.

    A `.weights.h5` file says neither how its layers are joined nor what their activations are:
    recurrent layers of one class are taken in order, then the dense ones, with those that Keras
    takes by default.

    Raises OSError if the file cannot be read, ValueError if it is no such file, or holds a layer
    that fastrnn has not; the message names the layer.
    """
    try:
        if path.lower().endswith(".keras"):
            modules = list(_from_archive(path, device))
        else:
            weights = hdf5.read(*budget.read(path))
            modules = list(_from_weights(weights, device))
            weights.check_all_taken()
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from error.__cause__
    if not modules:
        raise ValueError(f"file {path!r} holds no recurrent or dense layers")
    try:
        return modules[0] if len(modules) == 1 else Sequential(*modules)
    except ValueError as error:
        raise ValueError(f"file {path!r}: its layers do not fit: {error}") from None


def _from_archive(path: str, device: str) -> Iterator[Any]:
    data, room = budget.read(path)
    files = Archive(data, room)
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise MisfitError(f"it has no {name}")
    model = json.parse(files.read(CONFIG), room, CONFIG)
    whole = _get(model, "config", dict, "the model")
    layers = _get(whole, "layers", list, "the model")
    if _get(model, "class_name", str, "the model") != "Sequential":
        _check_chain(layers, whole.get("output_layers"))
    weights = hdf5.read(files.read(WEIGHTS), room)
    counts: dict[str, int] = {}
    chain = []
    for k, layer in enumerate(layers):
        kind = _get(layer, "class_name", str, f"layer {k}")
        if kind in _IDLE:
            continue
        config = _get(layer, "config", dict, f"layer {k} ({kind})")
        chain.append((f"layer {k} ({kind})", kind, config))
    for position, (where, kind, config) in enumerate(chain):
        snake = _SNAKES.get(kind)
        if snake is None:
            raise MisfitError(f"{where} is nothing that fastrnn has")
        number = counts.setdefault(snake, 0)
        counts[snake] += 1
        group = weights.child("layers", f"{snake}_{number}" if number else snake)
        if kind == "TimeDistributed":
            inner = _get(config, "layer", dict, where)
            if inner.get("class_name") != "Dense":
                raise MisfitError(f"{where} wraps {inner.get('class_name')!r}, wanted 'Dense'")
            config, group, kind = _get(inner, "config", dict, where), group.child("layer"), "Dense"
        if kind == "Dense":
            yield _dense(where, config, group, device)
        else:
            last = position == len(chain) - 1
            yield _recurrent(where, kind, config, group, device, last)
    weights.check_all_taken()


def _check_chain(layers: list[Any], outputs: Any) -> None:
    """Raise for layers that do not each read the one before, once and nothing else.

    A model that is no Sequential says what its layers read; their list is no more than sorted.
    """
    before = None
    for k, layer in enumerate(layers):
        kind = _get(layer, "class_name", str, f"layer {k}")
        where = f"layer {k} ({kind})"
        calls = _get(layer, "inbound_nodes", list, where)
        if [_tensors(call) for call in calls] != ([[[before, 0, 0]]] if k else []):
            wanted = f"layer {k - 1} once, and nothing else" if k else "nothing"
            raise MisfitError(f"{where} does not read {wanted}: the layers are no chain")
        before = _get(_get(layer, "config", dict, where), "name", str, where)
    # A layer's outputs past the first are its states, which a layer here gives, too.
    if {name for name, _, _ in _tensors(outputs)} != {before}:
        raise MisfitError(f"its outputs are {outputs!r}, wanted those of {before!r}"[:300])


def _tensors(nest: Any) -> list[Any]:
    """The tensors that are named in lists and dictionaries, each [layer, call, output]."""
    found, todo = [], [nest]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            if [type(part) for part in one] == [str, int, int]:
                found.append(one)
            else:
                todo += one
    return found


def _get(found: Any, name: str, kind: type, where: str) -> Any:
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise MisfitError(f"{where} has {name} {value!r}"[:300])
    return value


def _activation(where: str, config: dict[str, Any], name: str, wanted: tuple[str, ...]) -> str:
    value = config.get(name, wanted[0])
    if value not in wanted:
        raise MisfitError(f"{where} has {name} {value!r}, wanted {' or '.join(wanted)}")
    return str(value)


def _dense(where: str, config: dict[str, Any], group: Group, device: str) -> Linear:
    activation = config.get("activation", "linear")
    if activation not in ("linear", *ACTIVATIONS):
        raise MisfitError(f"{where} has activation {activation!r}")
    variables = group.child("vars")
    weight = variables.array(where, "0")
    values = {"weight": weight.T}
    bias = config.get("use_bias", "1" in variables.names)
    if bias:
        values["bias"] = variables.array(where, "1")
    inputs, outputs = (*weight.shape, 0, 0)[:2]
    linear = linear_config(
        inputs, outputs, bool(bias), None if activation == "linear" else activation, device,
        str(weight.dtype),
    )  # fmt: skip
    layer: Linear = _restored(where, Linear, linear, values)
    return layer


def _restored(where: str, kind: Any, config: dict[str, Any], values: dict[str, Any]) -> Any:
    try:
        return kind._restored(config, values)
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"{where}: {error}") from None


def _recurrent(
    where: str, kind: str, whole: dict[str, Any], group: Group, device: str, last: bool
) -> Any:
    config, both = whole, kind == "Bidirectional"
    groups = [group]
    if both:
        groups = [group.child(name) for name in ("forward_layer", "backward_layer")]
        if whole.get("merge_mode", "concat") != "concat":
            raise MisfitError(f"{where} has merge_mode {whole['merge_mode']!r}, wanted 'concat'")
        inner = _get(whole, "layer", dict, where)
        kind = _get(inner, "class_name", str, where)
        config = _get(inner, "config", dict, where)
        if kind not in KINDS:
            raise MisfitError(f"{where} wraps {kind!r}, which fastrnn has not")
        if not last and not config.get("return_sequences"):
            raise MisfitError(f"{where} gives its last step alone to the layer behind it")
    if config.get("go_backwards"):
        raise MisfitError(f"{where} has go_backwards, which no layer here has")
    own = _choices(where, kind, config)
    backward = whole.get("backward_layer") if both else None
    if backward is not None:
        where_back = f"{where}: backward_layer"
        name = _get(backward, "class_name", str, where_back)
        config = _get(backward, "config", dict, where_back)
        if name != kind or not config.get("go_backwards", True):
            raise MisfitError(f"{where_back} is {name!r}, wanted {kind!r} that goes backwards")
        if _choices(where_back, kind, config) != own:
            raise MisfitError(f"{where_back} differs from the forward one in more than weights")
    return from_groups(where, kind, groups, device, own)


def _choices(where: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """What a layer's configuration says beside its weights; raises for what no layer here has."""
    if kind == "SimpleRNN":
        return {"nonlinearity": _activation(where, config, "activation", ("tanh", "relu"))}
    _activation(where, config, "activation", ("tanh",))
    _activation(where, config, "recurrent_activation", ("sigmoid",))
    if kind == "GRU" and "reset_after" in config:
        return {"reset_after": bool(config["reset_after"])}
    return {}


def from_groups(
    where: str, kind: str, groups: list[Group], device: str, own: dict[str, Any]
) -> Any:
    """A recurrent layer of the groups of its directions, each with the variables of its cell."""
    make, G = KINDS[kind]
    values: dict[str, Any] = {}
    config: dict[str, Any] = {}
    resets = {own["reset_after"]} if "reset_after" in own else set()
    for suffix, group in zip(("_l0", "_l0_reverse"), groups, strict=False):
        variables = group.child("cell", "vars")
        kernel, recurrent = (variables.array(where, name).T for name in "01")
        H = (*recurrent.shape, 0, 0)[1]
        if kernel.ndim != 2 or kernel.shape[0] != G * H or recurrent.shape != (G * H, H) or not H:
            raise MisfitError(
                f"{where}: kernel has shape {kernel.T.shape}, recurrent kernel "
                f"{recurrent.T.shape}, wanted (I, {G} H) and (H, {G} H)"
            )
        values[f"weight_ih{suffix}"], values[f"weight_hh{suffix}"] = kernel, recurrent
        bias = "2" in variables.names
        config |= config_of(make, kernel.shape[1], H, 1, bias, device)
        config |= {"dtype": str(kernel.dtype), "bidirectional": len(groups) > 1}
        config["batch_first"] = True
        if bias:
            array = variables.array(where, "2")
            after = array.ndim == 2  # the GRU's second row is inside of the reset
            rows = array if after else (array, 0 * array)
            if array.shape[-1:] != (G * H,) or len(rows) != 2:
                raise MisfitError(f"{where}: bias has shape {array.shape}, wanted ({G * H},)")
            values[f"bias_ih{suffix}"], values[f"bias_hh{suffix}"] = rows
            resets.add(after)
    if make is GRU:
        if len(resets) > 1:
            raise MisfitError(f"{where}: its biases are those of several kinds of GRU")
        config["reset_after"] = resets.pop() if resets else True
    ordered = {name: from_format("keras", value, G) for name, value in values.items()}
    return _restored(where, make, config | own, ordered)


def _from_weights(weights: Group, device: str) -> Iterator[Any]:
    layers = weights.child("layers")
    named = {kind: layers.numbered(_SNAKES[kind]) for kind in KINDS}
    recurrent = {kind: groups for kind, groups in named.items() if groups}
    wrapped = layers.numbered("bidirectional")
    if len(recurrent) + bool(wrapped) > 1:
        raise MisfitError("it has recurrent layers of several classes, in an order it does not say")
    for kind, groups in recurrent.items():
        for k, group in enumerate(groups):
            yield from_groups(f"{_SNAKES[kind]} {k}", kind, [group], device, {})
    for k, group in enumerate(wrapped):
        groups = [group.child(name) for name in ("forward_layer", "backward_layer")]
        yield from_groups(
            f"bidirectional {k}", _kind_of(f"bidirectional {k}", groups[0]), groups, device, {}
        )
    for k, group in enumerate(layers.numbered("dense")):
        yield _dense(f"dense {k}", {}, group, device)


def _kind_of(where: str, group: Group) -> str:
    """The class of a recurrent layer, by the shape of its recurrent kernel."""
    shape = group.child("cell", "vars").array(where, "1").shape
    gates = shape[1] // shape[0] if len(shape) == 2 and shape[0] else 0
    found = [kind for kind, (_, G) in KINDS.items() if gates == G]
    if not found:
        raise MisfitError(f"{where}: recurrent kernel has shape {shape}")
    return found[0]
