"""Stands in for the CUDA driver: takes launches as that does, and tells what came with them."""

import ctypes
import re
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from cuda.bindings import driver as real

from fastrnn_kernels.cuda.launch import loaded
from fastrnn_kernels.cuda.launch.kernel import Kernel


def parameters(ptx: str) -> list[int]:
    """The bytes of each parameter that the kernel in some PTX declares."""
    declared = ptx[ptx.index(".entry") :].partition("(")[2].partition(")")[0]
    return [int(bits) // 8 for bits in re.findall(r"\.param \.[a-z](\d+)", declared)]


class Launch(NamedTuple):
    """One launch. Bytes of arguments as they were then."""

    function: int
    blocks: int
    threads: int
    shared_bytes: int
    stream: int
    cooperative: bool
    cluster: int
    arguments: tuple[bytes, ...]

    def values(self, sizes: list[int]) -> list[int]:
        """What the driver reads of each argument, of so many bytes."""
        return [
            int.from_bytes(held[:size], "little", signed=True)
            for held, size in zip(self.arguments, sizes, strict=True)
        ]


class Driver:
    """The functions that launch, with the real one's types. Use it as a context."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.attributes: list[tuple[str, int]] = []
        self.answers: list[Any] = []  # of the next launches, success after these
        self.captured: dict[int, int] = {}  # what is said of a stream's capture
        self._counts: dict[int, int] = {}  # of arguments, by function

    def __enter__(self) -> "Driver":
        self._patches = ExitStack()
        functions = {
            "cuLaunchKernel": self._launch,
            "cuLaunchKernelEx": self._launch_shaped,
            "cuKernelSetAttribute": self._set,
            "cuStreamIsCapturing": self._is_capturing,
        }
        for name, function in functions.items():
            self._patches.enter_context(mock.patch.object(loaded.driver, name, function))
        device = SimpleNamespace(
            MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=1 << 17, MULTIPROCESSOR_COUNT=2,
            compute_capability=(9, 0), id=0, name="stand-in",
        )  # fmt: skip
        patch = mock.patch.object(loaded.cuda, "get_current_device", return_value=device)
        self._patches.enter_context(patch)
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def loaded(self, kernel: Kernel, meets: bool = False) -> loaded.Loaded:
        """A kernel as though it were compiled for a GPU."""
        address = 5 + len(self._counts)
        self._counts[address] = len(kernel.arguments)
        handle = real.CUkernel(address)
        function = SimpleNamespace(handle=handle, attrs=SimpleNamespace(shared=64))
        library = SimpleNamespace(get_cufunc=lambda: function)
        return loaded.Loaded(
            kernel.name,
            kernel.arguments,
            kernel.function.__code__.co_varnames,
            SimpleNamespace(_codelibrary=library, cooperative=meets),
        )

    def _set(self, attribute: Any, value: int, handle: Any, device: Any) -> tuple[Any]:
        self.attributes.append((attribute.name, value))
        return (real.CUresult.CUDA_SUCCESS,)

    def _is_capturing(self, stream: int) -> tuple[Any, ...]:
        found = self.captured.get(stream, 0)
        if found > 2:
            return real.CUresult(found), None
        return real.CUresult.CUDA_SUCCESS, real.CUstreamCaptureStatus(found)

    def _take(self, *shape: Any, arguments: int) -> tuple[Any]:
        answer = self.answers.pop(0) if self.answers else real.CUresult.CUDA_SUCCESS
        if answer == real.CUresult.CUDA_SUCCESS:
            places = (ctypes.c_uint64 * self._counts[shape[0]]).from_address(arguments)
            held = tuple(ctypes.string_at(place, 8) for place in places)
            self.launches.append(Launch(*shape, held))
        return (answer,)

    def _launch(
        self, function: Any, x: int, y: int, z: int, threads: int, *rest: int
    ) -> tuple[Any]:
        *others, shared_bytes, stream, arguments, extra = rest
        assert [y, z, *others, extra] == [1, 1, 1, 1, 0]
        return self._take(
            int(function), x, threads, shared_bytes, stream, False, 1, arguments=arguments
        )

    def _launch_shaped(self, shape: Any, function: Any, arguments: int, extra: int) -> tuple[Any]:
        kinds = real.CUlaunchAttributeID
        found = {attribute.id: attribute.value for attribute in shape.attrs}
        assert shape.numAttrs == len(found)
        assert (shape.gridDimY, shape.gridDimZ, shape.blockDimY, shape.blockDimZ) == (1, 1, 1, 1)
        cooperative = cluster = 0
        if kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE in found:
            cooperative = found[kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE].cooperative
        if kinds.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION in found:
            dimension = found[kinds.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION].clusterDim
            assert (dimension.y, dimension.z) == (1, 1)
            cluster = dimension.x
        return self._take(
            int(function), shape.gridDimX, shape.blockDimX, shape.sharedMemBytes,
            int(shape.hStream), bool(cooperative), cluster or 1, arguments=arguments,
        )  # fmt: skip
