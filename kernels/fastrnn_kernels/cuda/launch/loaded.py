"""A kernel on the GPU, launched by the driver itself.

Numba's own launcher describes every array anew at each launch, which takes longer than the
kernels of a step.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from cuda.bindings import driver
from numba import cuda

from fastrnn_kernels.cuda.launch.errors import LaunchError, TooManyBlocksError

#: Blocks to a cluster that every GPU with clusters takes.
PORTABLE_CLUSTER = 8
#: The driver's words for blocks that have to run at once, of a grid or a cluster, and cannot.
_TOO_MANY = (
    driver.CUresult.CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
    driver.CUresult.CUDA_ERROR_INVALID_CLUSTER_SIZE,
)


class _Arguments:
    """Memory for the arguments of a launch: 8 bytes to each, and where each lies."""

    def __init__(self, count: int) -> None:
        self._values = np.zeros(count, np.int64)
        self._places = self._values.ctypes.data + 8 * np.arange(count, dtype=np.uint64)
        self._pack = struct.Struct(f"={count}q").pack_into
        self.address = int(self._places.ctypes.data)  # what the driver takes

    def pack(self, numbers: list[int]) -> None:
        """Numbers into their places; of a boolean the first byte is read."""
        self._pack(self._values.data, 0, *numbers)


class Loaded:
    """A kernel that was compiled for the current GPU."""

    def __init__(self, name: str, letters: str, parameters: Sequence[str], made: Any) -> None:
        """`made`: Numba's compiled form of a kernel; name, arguments' letters, their names."""
        self._name, self._letters, self._parameters = name, letters, parameters
        self._addresses = len(letters.rstrip("ib"))
        self._made = made  # holds the code that the handle points to
        function = made._codelibrary.get_cufunc()
        self._handle: Any = function.handle
        self._function = driver.CUfunction(int(self._handle))
        self._meets = bool(made.cooperative)  # its blocks wait for each other
        self._free: list[_Arguments] = []
        attributes = driver.CUfunction_attribute
        # Without, 48 KiB of shared memory are the most.
        most = cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        most -= function.attrs.shared  # that it has without asking
        self._set(attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
        self._cluster = PORTABLE_CLUSTER

    def _set(self, attribute: Any, value: int) -> None:
        if isinstance(self._handle, driver.CUkernel):
            device = driver.CUdevice(cuda.get_current_device().id)
            (status,) = driver.cuKernelSetAttribute(attribute, value, self._handle, device)
        else:
            (status,) = driver.cuFuncSetAttribute(self._handle, attribute, value)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise LaunchError(f"{self._name}: {attribute.name} {value} refused: {status.name}")

    def launch(
        self,
        blocks: int,
        threads: int,
        shared_bytes: int,
        stream: int,
        arguments: Sequence[Any],
        cooperative: bool,
        cluster: int,
    ) -> None:
        """Launch on a stream, told by its address.

        arguments: in the places of addresses CuPy's arrays, addresses, or None. cooperative:
        all blocks run at once; cluster: so many of them reach each other's shared memory.
        """
        many = self._addresses
        numbers = [
            one if type(one) is int else 0 if one is None else one.data.ptr
            for one in arguments[:many]
        ]
        numbers += arguments[many:]
        try:
            packed = self._free.pop()  # threads that launch at once have one each
        except IndexError:
            packed = _Arguments(len(self._letters))
        packed.pack(numbers)
        if cluster > self._cluster:
            attributes = driver.CUfunction_attribute
            self._set(attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
            self._cluster = cluster
        shape = blocks, threads, shared_bytes, stream, cooperative or self._meets, cluster
        status = self._try(packed.address, *shape)
        if status == driver.CUresult.CUDA_ERROR_INVALID_CONTEXT:
            cuda.current_context()  # a thread that uses the GPU for the first time has none
            status = self._try(packed.address, *shape)
        self._free.append(packed)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise (TooManyBlocksError if status in _TOO_MANY else LaunchError)(
                f"{self._name} was not launched, {blocks} blocks of {threads} threads and "
                f"{shared_bytes:,} bytes of shared memory, {self._sizes(numbers)}: {status.name}"
            )

    def _try(
        self,
        arguments: int,
        blocks: int,
        threads: int,
        shared_bytes: int,
        stream: int,
        cooperative: bool,
        cluster: int,
    ) -> Any:
        if cooperative or cluster > 1:
            shape = _shape(blocks, threads, shared_bytes, stream, cooperative, cluster)
            (status,) = driver.cuLaunchKernelEx(shape, self._function, arguments, 0)
        else:
            (status,) = driver.cuLaunchKernel(
                self._function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, arguments, 0
            )
        return status

    def _sizes(self, numbers: Sequence[int]) -> str:
        """The sizes of a pass, as a kernel calls them."""
        return ", ".join(
            f"{name}={number}"
            for name, letter, number in zip(self._parameters, self._letters, numbers, strict=False)
            if letter == "i"
        )


@lru_cache(maxsize=64)
def _shape(
    blocks: int, threads: int, shared_bytes: int, stream: int, cooperative: bool, cluster: int
) -> Any:
    """What the driver takes for a launch with attributes."""
    made = driver.CUlaunchConfig()
    made.gridDimX, made.gridDimY, made.gridDimZ = blocks, 1, 1
    made.blockDimX, made.blockDimY, made.blockDimZ = threads, 1, 1
    made.sharedMemBytes, made.hStream = shared_bytes, driver.CUstream(stream)
    attributes = []
    if cooperative:
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
        attribute.value.cooperative = 1
        attributes.append(attribute)
    if cluster > 1:
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        dimension = attribute.value.clusterDim
        dimension.x, dimension.y, dimension.z = cluster, 1, 1
        attributes.append(attribute)
    made.attrs = attributes
    made.numAttrs = len(attributes)
    return made
