"""Keras models: `.keras`, `.weights.h5` and the older `.h5`; Keras itself is not needed.

Read are chains of SimpleRNN, LSTM, GRU, Bidirectional, Dense and TimeDistributed(Dense), whose
activations are those of fastrnn's layers, and one such layer of any model by its name. Layers take
the batch first, as Keras's do, but for those with `time_major`, and give y at all steps.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastrnn.arrays import Array, Shape
from fastrnn.files import budget, hdf5, json
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.gates import from_format
from fastrnn.files.hdf5 import Group
from fastrnn.files.zip import Archive
from fastrnn.models.layers import GRU, LSTM, RNN
from fastrnn.models.linear import ACTIVATIONS, Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights.contents import Part, shapes_of, with_listing
from fastrnn.weights.state_dict import config_of, linear_config
from fastrnn_kernels import handlers

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
#: Layers by the names of their classes, and the gates of each.
KINDS: dict[str, tuple[Any, int]] = {"SimpleRNN": (RNN, 1), "LSTM": (LSTM, 4), "GRU": (GRU, 3)}
#: What does nothing in inference.
_IDLE = ("InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise", "ActivityRegularization")
#: Models, which may be layers of others.
_MODELS = ("Sequential", "Functional", "Model")
#: What there is to read, and how it is called in files.
_SNAKES = {
    "SimpleRNN": "simple_rnn", "LSTM": "lstm", "GRU": "gru", "Bidirectional": "bidirectional",
    "Dense": "dense", "TimeDistributed": "time_distributed",
}  # fmt: skip
#: Models inside of models: more than anyone has. Layers that an error looks at.
_DEEP, _LOOKED_AT = 16, 200


@dataclass(frozen=True)
class _Entry:
    """A layer of a file.

    names: what a prefix may call it, with the models that it is in, joined by dots; the first is
    told. config: None where the file has weights alone. group: gives its weights. top: whether it
    is no layer of a model inside of the model.
    """

    where: str
    names: tuple[str, ...]
    kind: str
    config: dict[str, Any] | None
    group: Callable[[], Group]
    top: bool = True


@dataclass(frozen=True)
class _File:
    """A file: all of its layers, and what gives the modules of the whole, for a device."""

    entries: list[_Entry]
    whole: Callable[[str], Iterator[Any]]


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The layer of a file that has one, else a Sequential.

    A `.weights.h5` file says neither how its layers are joined nor what their activations are:
    recurrent layers of one class are taken in order, then the dense ones, with those that Keras
    takes by default. The weights alone in an older `.h5` file have an order.

    prefix: the name of one layer to take, with those of the models it is in, joined by dots.

    Raises OSError if the file cannot be read, ValueError if it is no such file, or holds a layer
    that fastrnn has not; the message names the layer, and those that a prefix can take.
    """
    file = _opened(path)
    try:
        modules = [_one(file, prefix, device)] if prefix else list(file.whole(device))
        if not modules:
            raise MisfitError("it holds no recurrent or dense layers")
        try:
            return modules[0] if len(modules) == 1 else Sequential(*modules)
        except ValueError as error:
            handlers.pass_on(error)
            raise MisfitError(f"its layers do not fit: {error}") from None
    except MisfitError as error:
        handlers.pass_on(error)
        parts = _parts(file, device, _LOOKED_AT) if len(file.entries) > 1 else []
        raise ValueError(with_listing(f"file {path!r}: {error}", parts)) from error.__cause__


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds: its layers by their names."""
    file = _opened(path)
    return _parts(file, device, len(file.entries))


def _opened(path: str) -> _File:
    data, room = budget.read(path)
    try:
        archived = path.lower().endswith(".keras") or data[:2] == b"PK"
        return _of_archive(data, room) if archived else _of_hdf5(data, room)
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from error.__cause__


def _one(file: _File, prefix: str, device: str) -> Any:
    """The layer of a name, or of its end where no other layer is called so."""
    name = prefix.replace("/", ".")
    found = [entry for entry in file.entries if name in entry.names]
    found = found or [e for e in file.entries if name in {n.rpartition(".")[2] for n in e.names}]
    if not found:
        raise MisfitError(f"it has no layer {prefix!r}")
    if len(found) > 1:
        names = ", ".join(repr(entry.names[0]) for entry in found)
        raise MisfitError(f"it has {len(found)} layers {prefix!r}: {names}")
    return _layer(found[0], device)


def _parts(file: _File, device: str, most: int) -> list[Part]:
    """The first layers of a file."""
    parts = []
    for entry in file.entries[:most]:
        if entry.kind in _IDLE or entry.kind in _MODELS:
            continue
        try:
            model = _layer(entry, device)
        except MisfitError as error:
            handlers.pass_on(error)
            parts.append(Part(entry.names[0], _shapes(entry), reason=str(error)))
        else:
            parts.append(Part(entry.names[0], shapes_of(model.parameters), model))
    return parts


def _shapes(entry: _Entry) -> dict[str, Shape]:
    try:
        return shapes_of(entry.group().arrays())
    except MisfitError:  # it has no weights
        return {}


def _layer(entry: _Entry, device: str, last: bool = True) -> Any:
    """The layer of an entry; last: whether no other reads its output."""
    where, kind, config = entry.where, entry.kind, entry.config
    if kind not in _SNAKES:
        raise MisfitError(f"{where} is nothing that fastrnn has")
    whole = group = entry.group()
    if kind == "TimeDistributed":
        if config is not None:
            inner = _get(config, "layer", dict, where)
            if inner.get("class_name") != "Dense":
                raise MisfitError(f"{where} wraps {inner.get('class_name')!r}, wanted 'Dense'")
            config = _get(inner, "config", dict, where)
        group, kind = group.child("layer") if "layer" in group.names else group, "Dense"
    if kind == "Dense":
        made: Any = _dense(where, config or {}, group, device)
    elif config is not None:
        made = _recurrent(where, kind, config, group, device, last)
    else:
        groups = [group]
        if kind == "Bidirectional":
            groups = [group.child(name) for name in ("forward_layer", "backward_layer")]
            kind = _kind_of(where, groups[0])
        made = from_groups(where, kind, groups, device, {})
    whole.check_all_taken()
    return made


def _of_archive(data: bytes, room: Budget) -> _File:
    files = Archive(data, room)
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise MisfitError(f"it has no {name}")
    model = json.parse(files.read(CONFIG), room, CONFIG)
    return _configured(model, hdf5.read(files.read(WEIGHTS), room), _by_class)


def _of_hdf5(data: bytes, room: Budget) -> _File:
    weights = hdf5.read(data, room)
    text = weights.texts.get("model_config")
    if isinstance(text, str):
        model = json.parse(text.encode(errors="replace"), room, "its model_config")
        return _configured(model, weights.child("model_weights"), _by_name)
    names = [weights.texts[key] for key in sorted(weights.texts) if key.startswith("layer_names")]
    if names:
        order = [name for row in names for name in (row if isinstance(row, list) else [row])]
        return _of_names(weights, order)
    return _of_weights(weights)


#: Finds a layer's weights among those of its model, by its name, its class, and the number of those
#: of its class before it.
_Find = Callable[[Group, str, str, int], Group]


def _by_class(weights: Group, name: str, kind: str, number: int) -> Group:
    """As `.keras` archives have them."""
    snake = _snake(kind)
    return weights.child("layers", f"{snake}_{number}" if number else snake)


def _snake(kind: str) -> str:
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind))
    return _SNAKES.get(kind, words.lower())


def _by_name(weights: Group, name: str, kind: str, number: int) -> Group:
    """As the older HDF5 files have them; in a model's, by the path to each array."""
    if name in weights.names:
        inside = weights.child(name)
        return inside if kind in _MODELS else _as_new(inside.arrays())[1]
    return _as_new({n: a for n, a in weights.arrays().items() if name in n.split("/")})[1]


def _configured(model: Any, weights: Group, find: _Find) -> _File:
    """The file of a model that says what its layers are."""
    layers, whole = _layers_of(model, "the model")
    entries = list(_entries(layers, lambda: weights, find, "", 0))

    def modules(device: str) -> Iterator[Any]:
        if _get(model, "class_name", str, "the model") != "Sequential":
            _check_chain(layers, whole.get("output_layers"))
        chain = [entry for entry in entries if entry.top and entry.kind not in _IDLE]
        for position, entry in enumerate(chain):
            yield _layer(entry, device, position == len(chain) - 1)
        weights.check_all_taken()

    return _File(entries, modules)


def _layers_of(model: Any, where: str) -> tuple[list[Any], dict[str, Any]]:
    """A model's layers, and what else its configuration says: in Keras 2.2, nothing."""
    config = model.get("config") if isinstance(model, dict) else None
    if isinstance(config, list):
        return config, {}
    whole = _get(model, "config", dict, where)
    return _get(whole, "layers", list, where), whole


def _entries(
    layers: list[Any], weights: Callable[[], Group], find: _Find, outer: str, deep: int
) -> Iterator[_Entry]:
    """The layers of a model, those of models in it behind these."""
    if deep > _DEEP:
        raise MisfitError("it has models inside of each other, deeper than any")
    counts: dict[str, int] = {}
    for k, layer in enumerate(layers):
        kind = _get(layer, "class_name", str, f"layer {k}")
        where = f"layer {k} ({kind})"
        config = _get(layer, "config", dict if kind not in _MODELS else object, where)
        name = config.get("name") if isinstance(config, dict) else None
        name = name if isinstance(name, str) else str(layer.get("name", k))
        number = counts.setdefault(_snake(kind), 0)
        counts[_snake(kind)] += 1

        def group(name: str = name, kind: str = kind, number: int = number) -> Group:
            return find(weights(), name, kind, number)

        path = f"{outer}{name}"
        where = f"{where} in {outer[:-1]!r}" if outer else where
        yield _Entry(where, (path,), kind, config, group, not outer)
        if kind in _MODELS:
            inner, _ = _layers_of(layer, where)
            yield from _entries(inner, group, find, f"{path}.", deep + 1)


def _of_names(weights: Group, names: list[str]) -> _File:
    """An older file of weights alone, whose layers have an order."""
    entries = []
    for name in names:
        arrays = weights.child(name).arrays() if name in weights.names else {}
        if arrays:
            kind, group = _as_new(arrays)
            entries.append(_Entry(f"layer {name!r}", (name,), kind, None, partial(_same, group)))

    def modules(device: str) -> Iterator[Any]:
        for entry in entries:
            yield _layer(entry, device)
        weights.check_all_taken()

    return _File(entries, modules)


#: Variables by their older names, as newer files number them.
_NUMBERS = {"kernel": "0", "recurrent_kernel": "1", "bias": "2"}


def _as_new(arrays: Mapping[str, Array]) -> tuple[str, Group]:
    """The class that a layer's arrays look like, or "", and the arrays as newer files have them."""
    cells: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        parent, _, last = path.rpartition("/")
        word = last.partition(":")[0]
        cells.setdefault(parent, {})[_NUMBERS.get(word, word)] = array
    recurrent = [parent for parent, own in cells.items() if "1" in own]
    made = {
        p: Group("", {"cell": Group("/cell", {"vars": Group("/vars", cells[p])})}) for p in cells
    }
    if len(cells) == len(recurrent) == 1:
        (only,) = recurrent
        return _kind_of("the layer", made[only]), made[only]
    back = [parent for parent in recurrent if "backward" in parent]
    if len(cells) == len(recurrent) == 2 and len(back) == 1:
        (forward,) = set(recurrent) - set(back)
        both = {"forward_layer": made[forward], "backward_layer": made[back[0]]}
        return "Bidirectional", Group("", both)
    if len(cells) == 1:
        (own,) = cells.values()
        if set(own) <= {"0", "2"} and "0" in own and own["0"].ndim == 2:
            number = {"0": "0", "2": "1"}
            values = Group("/vars", {number[name]: array for name, array in own.items()})
            return "Dense", Group("", {"vars": values})
    return "", Group("", {"vars": Group("/vars", dict(arrays))})


def _of_weights(weights: Group) -> _File:
    """A file of weights alone, whose layers have classes and no order."""

    def modules(device: str) -> Iterator[Any]:
        yield from _from_weights(weights, device)
        weights.check_all_taken()

    return _File(list(_of_groups(weights, "", 0)), modules)


def _same(group: Group) -> Group:
    return group


def _of_groups(weights: Group, outer: str, deep: int) -> Iterator[_Entry]:
    if deep > _DEEP or "layers" not in weights.names:
        return
    layers = weights.child("layers")
    kinds = {snake: kind for kind, snake in _SNAKES.items()}
    for key in layers.names:
        group = layers.child(key)
        own = group.child("vars").texts.get("name") if "vars" in group.names else None
        names = (f"{outer}{key}", *([f"{outer}{own}"] if isinstance(own, str) else []))
        kind = kinds.get(re.sub(r"_\d{1,6}$", "", key), "")
        if "layers" in group.names:
            yield from _of_groups(group, f"{outer}{key}.", deep + 1)
        elif group.has_arrays():
            yield _Entry(f"layer {key!r}", names, kind, None, partial(_same, group))


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
            kinds = [type(part) for part in one]
            if kinds[:3] == [str, int, int] and kinds[3:] in ([], [dict]):
                found.append(one[:3])
                todo += one[3:]  # of Keras 2, what else the call was given
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
    return from_groups(where, kind, groups, device, {**own, "batch_first": not _by_time(config)})


def _by_time(config: dict[str, Any]) -> bool:
    """Whether a layer of Keras 2 takes the time first."""
    return bool(config.get("time_major"))


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
    starts = _starts(where, groups, len("hc") if make is LSTM else 1)
    learned = {"initial_state": "learned"} if starts else {}
    return _restored(where, make, config | own | learned, ordered | starts)


def _starts(where: str, groups: list[Group], states: int) -> dict[str, Any]:
    """The learned initial states of the directions of a layer of fastrnn.keras, if it has them."""
    found = {}
    for suffix, group in zip(("_l0", "_l0_reverse"), groups, strict=False):
        variables = group.child("vars") if "vars" in group.names else Group("", {})
        if len(variables.names) == states:
            for k, state in enumerate("hc"[:states]):
                found[f"initial_{state}{suffix}"] = variables.array(where, str(k))
    return found


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
