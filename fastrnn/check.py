"""The door: everything a user passes is checked here, once, before a kernel sees it.

Each error names the argument, what came and what was wanted.
"""

import math
import operator
import sys
from collections.abc import Sequence
from importlib import import_module
from numbers import Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastrnn.arrays import Array, Shape
from fastrnn_kernels import handlers

#: Steps of a sequence between two checkpoints, in all of a batch, under which it shows that a
#: segment takes a millisecond of Python (measured).
_SEGMENT = 4096
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))


def flag(name: str, value: Any) -> bool:
    """A boolean."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}, wanted True or False")
    return bool(value)


def size(name: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> int:
    """An integer from `least` to `most`."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}, wanted an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, wanted an integer") from None
    if number < least:
        raise ValueError(f"{name} is {number}, wanted at least {least}")
    if number > most:
        raise ValueError(f"{name} is {number}, wanted at most {most}")
    return number


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool | np.bool_ | np.timedelta64) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"{name} is {value!r}, wanted a number from 0 to 1")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, wanted a number from 0 to 1")
    return float(value)


def checkpoint(value: Any, T: int, B: int) -> int | None:
    """The steps between checkpoints over T steps of B sequences; None is none."""
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return max(1, math.isqrt(T), -(-_SEGMENT // max(1, B)))
    try:
        return size("checkpoint", value)
    except TypeError:
        raise TypeError(
            f"checkpoint is {value!r}, wanted None, 'auto', or a number of steps"
        ) from None


def clip(name: str, value: Any) -> float:
    """The most that a gradient is clipped to; 0 if it is not."""
    if value is None:
        return 0.0
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}, wanted a number or None")
    most = float(value)
    if not most > 0:
        raise ValueError(f"{name} is {value!r}, wanted more than 0, or None")
    return most


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of a few words."""
    wanted = ", ".join(repr(word) for word in choices)
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, wanted one of {wanted}")
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, wanted one of {wanted}")
    return value


def option(name: str, value: Any, values: Sequence[Any]) -> Any:
    """One of the values that an option has: True and False, or words."""
    return flag(name, value) if isinstance(values[0], bool) else choice(name, value, values)


def compute_type(name: str, value: Any) -> str:
    """float32, float64, bfloat16 or float16: the type that products are computed in."""
    wanted = "'float32', 'float64', 'bfloat16' or, on the GPU, 'float16'"
    if isinstance(value, str) and value == "bfloat16":  # NumPy does not know it
        return value
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except Exception as error:  # NumPy parses strings, and raises whatever that gives
        handlers.pass_on(error)
        raise TypeError(f"{name} is {value!r}, wanted {wanted}") from error
    if value is None or dtype not in _DTYPES:
        raise ValueError(f"{name} is {value!r}, wanted {wanted}")
    return str(dtype)


def array(name: str, value: Any, wanted: str = "an array") -> Array:
    """Anything NumPy takes for an array of numbers; an array on a GPU stays there, as CuPy's.

    On a GPU is what has `__cuda_array_interface__`, or DLPack and a CUDA device.
    """
    if type(value) is np.ndarray:
        return value
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, getattr(cupy, "ndarray", ())):
        return cast(Array, value)  # whose interface takes longer to ask for
    if value is None or isinstance(value, _matrix()):
        raise TypeError(f"{name} is {_kind(value)}, wanted {wanted}")
    try:
        on_gpu = hasattr(value, "__cuda_array_interface__")
        place = None if on_gpu else getattr(value, "__dlpack_device__", None)
        kind = int(place()[0]) if place is not None else _HOST
    except _PROTOCOL as error:  # torch's, of a tensor that requires a gradient
        handlers.pass_on(error)
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if on_gpu or kind in _CUDA:
        return _on_gpu(name, value)
    if kind not in (_HOST, _PINNED):
        raise TypeError(
            f"{name} lies on a device of DLPack's type {kind}, wanted the host's memory or a "
            "CUDA device's"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, wanted a plain one: masks are not applied")
    try:
        if place is not None and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        found = np.asarray(value)
    except _PROTOCOL as error:
        handlers.pass_on(error)
        raise TypeError(f"{name} is no array: {error}") from error
    if found.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is {_kind(value)} of dtype object, wanted an array")
    return found


def parameter(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """An array of floats of any width, bfloat16 too, which NumPy has not: it becomes float32."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()
    got = array(name, value, f"an array of {dtype}")
    if got.dtype.name == "bfloat16":
        got = got.astype(np.float32)
    return got


#: What reading an object as an array raises, its own `__array__` included; what else comes up there
#: is not about the array.
_PROTOCOL = (TypeError, ValueError, RuntimeError, AttributeError, BufferError, OverflowError)


def _matrix() -> Any:
    """The class of NumPy's matrices, which have two axes whatever is done to them."""
    return getattr(np, "matrix", ())


def _kind(value: Any) -> str:
    """A value as errors call it: by its class."""
    if value is None:
        return "None"
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy":
        return f"NumPy's {kind.__name__}"
    return f"{'an' if kind.__name__[0] in 'aeiou' else 'a'} {kind.__name__}"


#: DLPack's numbers of the host's memory, of that pinned by CUDA, and of CUDA's devices.
_HOST, _PINNED, _CUDA = 1, 3, (2, 13)


def _on_gpu(name: str, value: Any) -> Array:
    try:
        arrays = import_module("fastrnn_kernels.cuda.launch.arrays")
    except ImportError as error:
        raise TypeError(
            f"{name} is on a GPU, and fastrnn takes it there by CuPy: {error}"
        ) from None
    try:
        found: Array = arrays.adopt(value)
    except Exception as error:  # whatever the object's own protocol, CuPy and the driver raise
        handlers.pass_on(error)
        raise TypeError(f"{name} cannot be read as an array on a GPU: {error}") from error
    return found


def on_host(array: Array) -> bool:
    """Whether an array that was checked lies in the host's memory."""
    return type(array) is np.ndarray


def floats(name: str, value: Any, dtype: np.dtype[Any], owner: str) -> Array:
    """An array of just this float type; another one is refused, as in torch."""
    # To put a type into words takes longer than to look at it.
    plain = type(value) is np.ndarray
    got: Array = value if plain else array(name, value, f"an array of {dtype}")
    if got.dtype != dtype:
        told = f"{name} has dtype {got.dtype}, {owner} takes {dtype}"
        raise TypeError(told + _remedy(name, value, got.dtype, dtype))
    return got


def _remedy(name: str, value: Any, came: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """What to write where numbers came as another type; of an output there is nothing to say."""
    if came.kind not in "fiub" or name == "out":
        return ""
    x = name if name.isidentifier() and name != "input" else "x"
    has_astype = hasattr(value, "astype")
    written = f"{x}.astype(np.{wanted})" if has_astype else f"np.asarray({x}, np.{wanted})"
    other = f', or make the model with dtype="{came}"' if came == np.float64 else ""
    return f": write {written}{other}"


def shaped(
    name: str, value: Any, dtype: np.dtype[Any], shape: Shape, axes: str, owner: str
) -> Array:
    """An array of this float type and shape."""
    got = floats(name, value, dtype, owner)
    if got.shape != shape:
        raise ValueError(f"{name} has shape {got.shape}, wanted {axes} = {shape}")
    return got


def states(
    name: str,
    value: Any,
    letters: Sequence[str],
    shapes: Sequence[Shape],
    axes: str,
    dtype: np.dtype[Any],
    owner: str,
) -> list[Array]:
    """The states of a cell: an array if it has one, else a tuple of them."""
    if len(letters) == 1:
        return [shaped(name, value, dtype, shapes[0], axes, owner)]
    if not isinstance(value, tuple | list) or len(value) != len(letters):
        got = f"{len(value)} of them" if isinstance(value, tuple | list) else type(value).__name__
        raise TypeError(f"{name} is {got}, wanted a tuple of arrays ({', '.join(letters)})")
    return [
        shaped(f"{name} ({letter})", one, dtype, shape, axes, owner)
        for letter, one, shape in zip(letters, value, shapes, strict=True)
    ]


def lengths(value: Any, T: int, B: int) -> NDArray[np.int64] | None:
    """The (B,) lengths of the sequences, each from 0 to T."""
    if value is None:
        return None
    got = array("lengths", value)
    if not on_host(got):
        got = got.get()  # type: ignore[attr-defined]  # they decide how work is divided
    if got.size == 0 and got.dtype == np.float64:  # what NumPy makes of an empty list
        got = got.astype(np.int64)
    if got.dtype.kind not in "iu":
        raise TypeError(f"lengths has dtype {got.dtype}, wanted integers")
    if got.shape != (B,):
        raise ValueError(f"lengths has shape {got.shape}, wanted (B,) = ({B},)")
    wrong = got[(got < 0) | (got > T)]
    if wrong.size:
        raise ValueError(f"lengths holds {wrong[0]}, wanted 0 to T = {T}")
    return got.astype(np.int64)


def reset(value: Any, shape: Shape, axes: str) -> NDArray[np.bool_] | None:
    """The boolean mask of sequence boundaries."""
    if value is None:
        return None
    got = array("reset", value)
    if got.dtype != np.bool_:
        raise TypeError(f"reset has dtype {got.dtype}, wanted booleans")
    if got.shape != shape:
        raise ValueError(f"reset has shape {got.shape}, wanted {axes} = {shape}")
    return got
