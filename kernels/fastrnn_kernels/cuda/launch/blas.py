"""Matrix products: cuBLAS's, through its C interface; NumPy's on the simulator.

CuPy's call of cuBLAS takes longer than a small product, and refuses to be recorded in a graph.
It stands in where the library itself is not found.
"""

import ctypes
import threading
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import config

from fastrnn_kernels.cuda.isa.rounding import PER_WORD, rounded
from fastrnn_kernels.cuda.launch.arrays import Array, xp
from fastrnn_kernels.cuda.launch.launch import caller_key, recording, simulate

#: Bytes that cuBLAS may use beside: what it wants of the GPUs that want most.
WORKSPACE = 32 << 20
#: cuBLAS's words for a matrix as it is, and transposed.
PLAIN, TRANSPOSED = 0, 1
#: For values of float32, for the types in which it multiplies them, each down-converted by
#: itself and added up in float32, and for its own choice of an algorithm.
FLOAT32, BY_ITSELF = 0, -1
COMPUTE = {"float16": 74, "bfloat16": 75, "tf32": 77}


def product(a: Array, b: Array, out: Array, transposed: bool = False, compute: str = "") -> None:
    """out (m, n) = a (m, k) b (k, n), or a bᵀ of b (n, k) where `transposed`.

    out is C-contiguous; a and b have one contiguous axis each. `compute`, if it names one, is
    the type in which tensor cores multiply values of float32; sums are of float32.
    """
    b = b.T if transposed else b
    if config.ENABLE_CUDASIM:
        simulate(lambda: np.matmul(_rounded(a, compute), _rounded(b, compute), out=out))
    elif (library := cublas()) is None:
        xp.matmul(a, b, out=out)
    else:
        library.product(a, b, out, compute)


def _rounded(array: Array, compute: str) -> Array:
    if compute not in PER_WORD or array.dtype != np.float32:
        return array
    return rounded(np.ascontiguousarray(array), compute)


def multiplied(a: Array, b: Array, compute: str = "") -> Array:
    """A product in an array of its own."""
    out = xp.empty((a.shape[0], b.shape[1]), a.dtype)
    product(a, b, out, compute=compute)
    return out


@lru_cache(maxsize=16)
def _workspace(key: tuple[int, int]) -> Array:
    return xp.empty(WORKSPACE, "uint8")


def workspace() -> Array:
    """The memory that products on the caller's stream use beside; a graph has to keep it."""
    return _workspace(caller_key())


@cache
def cublas() -> "Cublas | None":
    """cuBLAS, or None where it is not found, or is too new for the driver."""
    from cuda import pathfinder

    try:
        found = Cublas(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
        found.begin()
    except (OSError, RuntimeError):
        return None
    return found


class _Handle:
    """A handle of cuBLAS, and the stream and workspace that it was last used with."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.place: tuple[int, int] | None = None


class Cublas:
    """The functions of cuBLAS that are used here.

    Its matrices lie by columns: a C-contiguous (m, k) is its (k, m). So it is asked for
    outᵀ = bᵀ aᵀ.
    """

    def __init__(self, path: Any) -> None:
        """Raises OSError for what is no such library."""
        self._library = library = ctypes.CDLL(path)
        whole, address = ctypes.c_int, ctypes.c_void_p
        self._products = {}
        for dtype, name, number in (
            (np.dtype(np.float32), "cublasSgemm_v2", ctypes.c_float),
            (np.dtype(np.float64), "cublasDgemm_v2", ctypes.c_double),
        ):
            function = getattr(library, name)
            function.argtypes = [
                address, whole, whole, whole, whole, whole, address, address, whole, address,
                whole, address, address, whole,
            ]  # fmt: skip
            one, none = number(1), number(0)
            self._products[dtype] = function, ctypes.pointer(one), ctypes.pointer(none)
        by_type = library.cublasGemmEx
        by_type.argtypes = [
            address, whole, whole, whole, whole, whole, address, address, whole, whole, address,
            whole, whole, address, address, whole, whole, whole, whole,
        ]  # fmt: skip
        library.cublasSetStream_v2.argtypes = [address, address]
        library.cublasSetWorkspace_v2.argtypes = [address, address, ctypes.c_size_t]
        self._free: list[_Handle] = []  # threads that multiply at once have a handle each
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Raise RuntimeError if the library does not work here."""
        self._free.append(self._new_handle())

    def product(self, a: Array, b: Array, out: Array, compute: str) -> None:
        """As `product`; RuntimeError where cuBLAS fails."""
        m, n = out.shape
        k = a.shape[1]
        if m == 0 or n == 0:
            return
        if k == 0:
            out[...] = 0
            return
        function, one, none = self._products[out.dtype]
        key = caller_key()
        stream = key[0] if recording.stream is None else recording.stream
        place = stream, _workspace(key).data.ptr
        try:
            handle = self._free.pop()
        except IndexError:
            handle = self._new_handle()
        status = 0 if handle.place == place else self._move(handle, place)
        (of_a, a_step), (of_b, b_step) = _laid(a), _laid(b)
        first = handle.address, of_b, of_a, n, m, k, one
        if compute not in COMPUTE or out.dtype != np.float32:
            status = status or function(
                *first, b.data.ptr, b_step, a.data.ptr, a_step, none, out.data.ptr, n
            )
        else:
            status = status or self._library.cublasGemmEx(
                *first, b.data.ptr, FLOAT32, b_step, a.data.ptr, FLOAT32, a_step, none,
                out.data.ptr, FLOAT32, n, COMPUTE[compute], BY_ITSELF,
            )  # fmt: skip
        self._free.append(handle)
        if status:
            raise RuntimeError(
                f"a product of ({m}, {k}) by ({k}, {n}), {compute or out.dtype}: cuBLAS's error "
                f"{status}"
            )

    def _move(self, handle: _Handle, place: tuple[int, int]) -> Any:
        stream, beside = place
        handle.place = None
        # Setting the stream takes the workspace away.
        status = self._library.cublasSetStream_v2(handle.address, stream)
        status = status or self._library.cublasSetWorkspace_v2(handle.address, beside, WORKSPACE)
        if not status and recording.stream is None:  # else that stream will soon be gone
            handle.place = place
        return status

    def _new_handle(self) -> _Handle:
        handle = ctypes.c_void_p()
        with self._lock:
            status = self._library.cublasCreate_v2(ctypes.byref(handle))
        if status:
            raise RuntimeError(f"cuBLAS cannot be used on this GPU: its error {status}")
        return _Handle(handle.value or 0)


def _laid(array: Array) -> tuple[int, int]:
    """How a matrix lies, in cuBLAS's words, and the values from one row or column to the next.

    Raises ValueError if neither of its axes is contiguous.
    """
    (rows, columns), item = array.strides, array.itemsize
    if columns == item or array.shape[1] == 1:
        return PLAIN, max(rows // item, array.shape[1])
    if rows == item or array.shape[0] == 1:
        return TRANSPOSED, max(columns // item, array.shape[0])
    raise ValueError(f"a matrix of strides {array.strides} reached cuBLAS")
