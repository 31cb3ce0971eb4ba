"""Stand-ins for all that fastrnn needs of a GPU: CuPy, the driver, cuBLAS.

Launches are told, and do nothing; products are computed.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import driver as real

from cuda_cupy import cupy
from cuda_driver import Driver
from fastrnn_kernels.cuda.launch.kernel import Kernel


class Cublas:
    """The library's functions, computed by NumPy on the addresses that they are given."""

    def __init__(self):
        self.handles, self.streams, self.error, self.computed_in = 0, [], 0, []
        # Functions of a library have attributes, which methods have not.
        for name in ("Create", "SetStream", "SetWorkspace"):
            setattr(self, f"cublas{name}_v2", partial(getattr(self, name)))
        for name, number in (("S", ctypes.c_float), ("D", ctypes.c_double)):
            setattr(self, f"cublas{name}gemm_v2", partial(self.gemm, number))
        self.cublasGemmEx = partial(self.gemm_by_type)

    def Create(self, handle):
        self.handles += 1
        handle._obj.value = self.handles
        return self.error

    def SetStream(self, handle, stream):
        self.streams.append(stream)
        self.workspace = None
        return 0

    def SetWorkspace(self, handle, address, size):
        self.workspace = address, size
        return 0

    def gemm_by_type(self, *given):
        *sizes, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm = given
        # The C header's numbers, of a type of values and of one to multiply in.
        assert (a_type, b_type, c_type, algorithm) == (0, 0, 0, -1)
        self.computed_in.append({74: "float16", 75: "bfloat16", 77: "tf32"}[compute])
        return self.gemm(ctypes.c_float, *sizes, a, lda, b, ldb, beta, c, ldc)

    def gemm(self, number, handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        def matrix(address, rows, columns, leading):
            assert leading >= rows
            held = (number * (leading * columns)).from_address(address)
            return np.ctypeslib.as_array(held).reshape(columns, leading)[:, :rows].T

        assert self.workspace
        A = matrix(a, k, m, lda).T if op_a else matrix(a, m, k, lda)
        B = matrix(b, n, k, ldb).T if op_b else matrix(b, k, n, ldb)
        C = matrix(c, m, n, ldc)
        product = alpha.contents.value * (A @ B)
        C[:] = product + beta.contents.value * C if beta.contents.value else product
        return 0


class Captures:
    """The driver's functions for graphs, told in order."""

    def __init__(self, monkeypatch):
        self.told, self.refuse = [], None
        for name in (
            "cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture", "cuStreamDestroy",
            "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy",
        ):  # fmt: skip
            monkeypatch.setattr(real, name, partial(self.tell, name))

    def tell(self, name, *given):
        self.told.append((name, *map(int, given[:2])))
        if name == self.refuse:
            return (real.CUresult.CUDA_ERROR_NOT_SUPPORTED, None)
        values = {"cuStreamCreate": 99, "cuStreamEndCapture": 7, "cuGraphInstantiate": 8}
        return (real.CUresult.CUDA_SUCCESS, *([values[name]] if name in values else []))


def _use(monkeypatch: Any, modules: Any, cublas: Any) -> None:
    for module in modules:
        monkeypatch.setattr(module, "cublas", cublas)


@contextmanager
def stand_ins(monkeypatch: Any) -> Iterator[Any]:
    """All of them, the caller's stream having the address 11.

    `names` has the kernels' own by the functions of `driver.launches`.
    """
    library, names, kernels = Cublas(), {}, {}
    with cupy(stream=11) as module, Driver() as driver:
        from fastrnn_kernels.cuda.launch import blas, graph, launch

        def compiled(kernel: Kernel) -> Any:
            if kernel not in kernels:
                names[5 + len(kernels)] = kernel.name.rpartition(".")[2]
                kernels[kernel] = driver.loaded(kernel)
            return kernels[kernel]

        monkeypatch.setattr(Kernel, "compiled", property(compiled))
        with monkeypatch.context() as patch:
            patch.setattr(blas.ctypes, "CDLL", lambda path: library)
            found = blas.Cublas("cublas")
        plain = blas.cublas
        use = partial(_use, monkeypatch, (blas, graph))
        use(lambda: found)
        yield SimpleNamespace(
            cupy=module, driver=driver, graph=graph, launch=launch, blas=blas,
            library=library, names=names, restore_cublas=lambda: use(plain),
        )  # fmt: skip
