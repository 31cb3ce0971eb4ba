"""What kernels do that Python has no words for, as LLVM and PTX.

Vectors of 128 bits; loads that pass by the first-level cache, which blocks do not share; a
barrier of all blocks in two halves; tensor cores; operations on a thread's registers, which an
array of its own becomes where every index is a constant.

Such a piece is written once, as a function of operations: `operation` has it write LLVM through
`Emitted` while a kernel is compiled, or, on Numba's simulator, compute through `Plain`. Threads
that meet there do so by methods of the current thread, which its runner has to have.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types

from fastrnn_kernels.cuda.isa.rounding import PER_WORD, bits

#: Of shared arrays, for vectors; the simulator's have none.
ALIGNMENT = None if config.ENABLE_CUDASIM else 16
_I32, _I64 = ir.IntType(32), ir.IntType(64)
#: Of a product of tensor cores, its PTX; of a type, how a float32 becomes one.
_TENSOR = {
    "tf32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    "bfloat16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "float16": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
}
_ROUNDED = {"tf32": "cvt.rna.tf32", "bfloat16": "cvt.rn.bf16", "float16": "cvt.rn.f16"}


def _thread() -> Any:
    return threading.current_thread()


class Plain:
    """Operations on numbers and NumPy arrays."""

    def zero(self, array: Any) -> Any:
        """0 of an array's type."""
        return array.dtype.type(0)

    def load(self, array: Any, at: int, offset: int, count: int) -> list[Any]:
        """`count` neighbours from array[at + offset] on, aligned to the size of all of them."""
        return list(array[at + offset : at + offset + count])

    #: The same, of a global array that other blocks write.
    load_fresh = load

    def store(self, array: Any, at: int, offset: int, values: list[Any]) -> None:
        """Neighbours to array[at + offset] on, aligned to the size of all of them."""
        array[at + offset : at + offset + len(values)] = values

    def store_rounded(self, array: Any, at: int, value: Any, compute: str) -> None:
        """A value to be multiplied by tensor cores, at a place of its size in a global array."""
        found = bits(np.array([value]), compute)
        array.view(found.dtype)[at] = found[0]

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return a + b

    def fma(self, a: Any, b: Any, total: Any) -> Any:
        """total + a b."""
        return total + a * b

    def tensor(self, a: list[Any], b: list[Any], totals: list[Any], compute: str) -> list[Any]:
        """totals (16, 8) + a (16, K) b (K, 8), of a warp, in the registers that PTX says."""
        return list(_thread().tensor(a, b, totals, compute))

    def arrive(self, met: Any, at: int) -> None:
        """Count one more in met[at], after all that this block has written."""
        _thread().arrive(met, at)

    def wait_for(self, met: Any, at: int, count: int) -> None:
        """Wait until met[at] is `count`; then all is there that was written before."""
        _thread().wait_for(met, at, count)

    def store_to_all(self, shared: Any, at: int, value: Any, blocks: int) -> None:
        """A value to shared[at] of each block of this one's cluster."""
        _thread().store_to_all(shared.dtype, at, value, blocks)

    def arrive_in_cluster(self, blocks: int) -> None:
        """One more thread has come to the barrier of the cluster, after all it has written."""
        _thread().arrive_in_cluster(blocks)

    def wait_in_cluster(self, blocks: int) -> None:
        """Wait until all threads of the cluster have come, and see what they wrote before."""
        _thread().wait_in_cluster(blocks)


class Emitted:
    """The same operations, as LLVM of a kernel that is being compiled."""

    def __init__(self, context: Any, builder: Any, kinds: dict[int, Any]) -> None:
        self._context, self._builder = context, builder
        self._kinds = kinds  # of the arguments, by identity

    def zero(self, array: Any) -> Any:
        """0 of an array's type."""
        return ir.Constant(self._context.get_value_type(self._kinds[id(array)].dtype), 0)

    def load(self, array: Any, at: Any, offset: int, count: int) -> list[Any]:
        """Neighbours from array[at + offset] on; of a thread's own array where `at` is a number."""
        build = self._builder
        if isinstance(at, int):  # a thread's own, which is to become registers
            return [build.load(self._address(array, at, offset + j)) for j in range(count)]
        address = self._address(array, at, offset)
        one = address.type.pointee
        found = build.load(build.bitcast(address, ir.VectorType(one, count).as_pointer()))
        found.align = count * _bytes(one)
        return [build.extract_element(found, _I32(j)) for j in range(count)]

    def load_fresh(self, array: Any, at: Any, offset: int, count: int) -> list[Any]:
        """Neighbours from array[at + offset] on, from the cache that all blocks share."""
        address = self._address(array, at, offset)
        one = address.type.pointee
        letter = "d" if _bytes(one) == 8 else "f"
        registers = ", ".join(f"${j}" for j in range(count))
        text = f"ld.global.cg.v{count}.f{8 * _bytes(one)} {{{registers}}}, [${count}];"
        constraints = ",".join([f"={letter}"] * count + ["l"])
        found = self._write(text, constraints, [one] * count, [self._global(address)])
        return [self._builder.extract_value(found, j) for j in range(count)]

    def store(self, array: Any, at: Any, offset: int, values: list[Any]) -> None:
        """Neighbours to array[at + offset] on; to a thread's own array where `at` is a number."""
        build = self._builder
        if isinstance(at, int):
            for j, value in enumerate(values):
                build.store(value, self._address(array, at, offset + j))
            return
        one, count = values[0].type, len(values)
        vector = ir.Constant(ir.VectorType(one, count), ir.Undefined)
        for j, value in enumerate(values):
            vector = build.insert_element(vector, value, _I32(j))
        address = self._address(array, at, offset)
        stored = build.store(vector, build.bitcast(address, vector.type.as_pointer()))
        stored.align = count * _bytes(one)

    def store_rounded(self, array: Any, at: Any, value: Any, compute: str) -> None:
        """A value to be multiplied by tensor cores, rounded to their type."""
        build = self._builder
        size = 32 // PER_WORD[compute]
        word = ir.IntType(size)
        register = "r" if size == 32 else "h"
        text = f"{_ROUNDED[compute]}.f32 $0, $1;"
        kind = ir.FunctionType(word, [value.type])
        found = build.asm(kind, text, f"={register},f", [value], False)
        first = self._address(array, _I64(0), 0)
        address = build.gep(build.bitcast(first, word.as_pointer()), [at], inbounds=True)
        build.store(found, address)

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return self._builder.fadd(a, b)

    def fma(self, a: Any, b: Any, total: Any) -> Any:
        """total + a b, rounded once."""
        return self._builder.fma(a, b, total)

    def tensor(self, a: list[Any], b: list[Any], totals: list[Any], compute: str) -> list[Any]:
        """totals + a b of a warp, each lane with its registers."""
        build = self._builder
        words = [build.bitcast(value, _I32) for value in (*a, *b)]
        text = (
            f"{_TENSOR[compute]} {{$0, $1, $2, $3}}, {{$4, $5, $6, $7}}, {{$8, $9}}, "
            "{$10, $11, $12, $13};"
        )
        constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
        kinds = [total.type for total in totals]
        found = self._write(text, constraints, kinds, words + totals)
        return [build.extract_value(found, j) for j in range(4)]

    def arrive(self, met: Any, at: Any) -> None:
        """One more in met[at], after all that this block has written."""
        address = self._global(self._address(met, at, 0))
        self._write("red.release.gpu.global.add.u64 [$0], 1;", "l", None, [address])

    def wait_for(self, met: Any, at: Any, count: Any) -> None:
        """Wait until met[at] is `count`, and see what was written before."""
        text = (
            "{ .reg .pred before; .reg .u64 found; again: ld.acquire.gpu.global.u64 found, [$0]; "
            "setp.lt.u64 before, found, $1; @before bra again; }"
        )
        self._write(text, "l,l", None, [self._global(self._address(met, at, 0)), count])

    def store_to_all(self, shared: Any, at: Any, value: Any, blocks: int) -> None:
        """A value to shared[at] of each block of this one's cluster."""
        build = self._builder
        address = self._address(shared, at, 0)
        near = build.addrspacecast(address, address.type.pointee.as_pointer(3))
        size, letter = 8 * _bytes(value.type), "d" if _bytes(value.type) == 8 else "f"
        for rank in range(blocks):
            text = (
                f"{{ .reg .b32 there; mapa.shared::cluster.u32 there, $0, {rank}; "
                f"st.shared::cluster.f{size} [there], $1; }}"
            )
            self._write(text, f"r,{letter}", None, [build.ptrtoint(near, _I32), value])

    def arrive_in_cluster(self, blocks: int) -> None:
        """One more thread has come to the barrier of the cluster, after all it has written."""
        self._write("barrier.cluster.arrive.release;", "", None, [])

    def wait_in_cluster(self, blocks: int) -> None:
        """Wait until all threads of the cluster have come, and see what they wrote before."""
        self._write("barrier.cluster.wait.acquire;", "", None, [])

    def _address(self, array: Any, at: Any, offset: int) -> Any:
        from numba.cuda import cgutils

        kind, build = self._kinds[id(array)], self._builder
        data = array
        if not isinstance(kind, types.CPointer):
            data = cgutils.create_struct_proxy(kind)(self._context, build, array).data
        place = _I64(at + offset) if isinstance(at, int) else build.add(at, _I64(offset))
        return build.gep(data, [place], inbounds=True)

    def _global(self, address: Any) -> Any:
        """An address as instructions on global memory take it."""
        build = self._builder
        return build.ptrtoint(
            build.addrspacecast(address, address.type.pointee.as_pointer(1)), _I64
        )

    def _write(self, text: str, constraints: str, results: Any, values: list[Any]) -> Any:
        """PTX that stays where it is, among all that reads and writes memory."""
        result = ir.LiteralStructType(results) if results else ir.VoidType()
        kind = ir.FunctionType(result, [value.type for value in values])
        constraints = f"{constraints},~{{memory}}".lstrip(",")
        written = self._builder.asm(kind, text, constraints, values, True)
        written.attributes.add("convergent")  # threads that meet there come together
        return written


def _bytes(kind: Any) -> int:
    return 8 if isinstance(kind, ir.DoubleType) else 4


def operation(written: Callable[..., None]) -> Any:
    """A function for kernels from `written(operations, *arguments)`.

    Its arguments are arrays, values of their type, and integers.
    """
    if config.ENABLE_CUDASIM:
        return lambda *arguments: written(Plain(), *arguments)

    from numba.cuda.extending import intrinsic

    def typed(context, *kinds):  # type: ignore[no-untyped-def]
        wide = [types.int64 if isinstance(kind, types.Integer) else kind for kind in kinds]

        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            parts = [builder.extract_value(values[0], j) for j in range(len(wide))]
            given = dict(zip(map(id, parts), wide, strict=True))
            written(Emitted(context, builder, given), *parts)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(wide)), emit

    return intrinsic(typed)


arrive = operation(lambda ops, met, at: ops.arrive(met, at))
wait_for = operation(lambda ops, met, at, count: ops.wait_for(met, at, count))
