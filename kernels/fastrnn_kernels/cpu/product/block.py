"""Register blocks, as LLVM vectors of whatever width the host has.

One computes, for R rows and V vectors of columns,

    out[r, v] = init[r, v] + sum_k a[r, k] * panel[k, v]

with every accumulator in a register. The products of CHUNK values of k are one chain of
fused multiply-adds, and the chains are added up in order: so the result of a row does not
depend on the rows it is computed with, nor on how many there are, and the error grows
with K / CHUNK, not with K.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.llvm import (
    _INDEX,
    _ITEM_BYTES,
    data_of,
    fetch_line,
    fused_multiply_add,
    lanes_of,
    splat,
    unroll,
)

#: Products to a chain. One chain over K = 512 costs three times the error of chains of 128.
CHUNK = 128


#: Rows up to which one is bound by reading its panel, and fetches it ahead where that helps.
FETCHING_ROWS = 4


class _Bfloat16(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat16)

    def __hash__(self) -> int:
        return hash(_Bfloat16)


def _pairs_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """c + a₁ b₁ + a₀ b₀ for vectors of pairs of bfloat16."""
    if current().pairs:
        pairs = ir.VectorType(_Bfloat16(), 2 * c.type.count)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(c.type, (c.type, pairs, pairs)),
            f"llvm.x86.avx512bf16.dpbf16ps.{8 * current().vector_bytes}",
        )
        return builder.call(function, (c, builder.bitcast(a, pairs), builder.bitcast(b, pairs)))
    # A bfloat16 is the upper half of a float32.
    upper = ir.Constant(a.type, [-(1 << 16)] * a.type.count)
    sixteen = ir.Constant(a.type, [16] * a.type.count)
    for halves in (
        [builder.and_(pair, upper) for pair in (a, b)],
        [builder.shl(pair, sixteen) for pair in (a, b)],
    ):
        first, second = (builder.bitcast(half, c.type) for half in halves)
        c = fused_multiply_add(builder, first, second, c)
    return c


def kinds_of_arguments(out: Any, init: Any, a: Any, rows_at: Any, panel: Any) -> tuple[Any, ...]:
    """Numba's types of what a register block is given: those of its arrays, and integers."""
    number = types.int64
    return (
        out, number, number, init, number, number,
        a, rows_at, number, number, panel, number, number, number,
    )  # fmt: skip


def register_block(rows: int, vectors: int) -> Callable[..., Any]:
    """A register block of `rows` rows and `vectors` vectors of columns, as a function.

        (out, out_at, out_step, init, init_at, init_step,
         a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)

    Row r of `a` begins at `a[rows_at[rows_first + r]]`, or, where `rows_at` is a number, at
    `a[rows_at + rows_first + r]`, and goes on in steps of `a_step`;
    row k of the panel begins at `panel_at + k * panel_step`; row r of `init` and of `out`
    at `init_at + r * init_step` and `out_at + r * out_step`. All in elements, `count`
    products to a sum. `out` may be `init`. Where `a` and the panel are of int32, each element
    is a pair of bfloat16 (`pairs.py`), and so is each product of the count. Arrays come as
    such or as their `pointer`.
    """

    @intrinsic
    def product(  # type: ignore[no-untyped-def]
        typingctx, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        width = lanes_of(out.dtype)
        signature = types.void(*kinds_of_arguments(out, init, a, rows_at, panel))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            (out, out_at, out_step, init, init_at, init_step,
             a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count) = args  # fmt: skip
            kinds = signature.args
            out = data_of(context, builder, kinds[0], out)
            init = data_of(context, builder, kinds[3], init)
            a = data_of(context, builder, kinds[6], a)
            side_by_side = isinstance(kinds[7], types.Integer)
            if not side_by_side:
                rows_at = data_of(context, builder, kinds[7], rows_at)
            panel = data_of(context, builder, kinds[10], panel)
            item = _ITEM_BYTES[kinds[0].dtype]
            scalar = ir.FloatType() if item == 4 else ir.DoubleType()
            vector = ir.VectorType(scalar, width)
            pairs = kinds[6].dtype == types.int32
            factors = ir.VectorType(ir.IntType(32), width) if pairs else vector
            chain = CHUNK // 2 if pairs else CHUNK
            multiply_add = _pairs_multiply_add if pairs else fused_multiply_add
            isa = current()
            ahead = isa.fetch_ahead // isa.vector_bytes  # vectors, as pointers count

            def vector_at(base: Any, at: Any, kind: Any = vector) -> Any:
                return builder.bitcast(builder.gep(base, [at]), kind.as_pointer())

            def sum_up(numbers: range) -> None:
                """The sums of some of the rows."""
                row = {}
                for r in numbers:
                    number = builder.add(rows_first, _INDEX(r))
                    if side_by_side:
                        at = builder.add(rows_at, number)
                    else:
                        at = builder.load(builder.gep(rows_at, [number]))
                    row[r] = builder.gep(a, [at])
                entry = builder.block
                chunk_loop = builder.append_basic_block("chunk")
                product_loop = builder.append_basic_block("product")
                add_up = builder.append_basic_block("add")
                done = builder.append_basic_block("done")
                builder.branch(chunk_loop)

                builder.position_at_end(chunk_loop)
                start = builder.phi(_INDEX)
                start.add_incoming(_INDEX(0), entry)
                end = builder.add(start, _INDEX(chain))
                end = builder.select(builder.icmp_signed("<", end, count), end, count)
                if side_by_side and isa.fetch_rows:  # sums of a weight's gradient: they are far
                    for r in numbers:
                        to_at = builder.add(out_at, builder.mul(out_step, _INDEX(r)))
                        for v in range(0, vectors, max(1, CACHE_LINE // isa.vector_bytes)):
                            at = builder.add(to_at, _INDEX(v * width))
                            fetch_line(builder, builder.gep(out, [at]))
                builder.cbranch(builder.icmp_signed("<", start, end), product_loop, add_up)

                builder.position_at_end(product_loop)
                k = builder.phi(_INDEX)
                k.add_incoming(start, chunk_loop)
                sums = {(r, v): builder.phi(vector) for r in numbers for v in range(vectors)}
                for phi in sums.values():
                    phi.add_incoming(ir.Constant(vector, [0.0] * width), chunk_loop)
                a_at = builder.mul(k, a_step)
                p_at = builder.add(panel_at, builder.mul(k, panel_step))
                splats, new = {}, {}
                for r in numbers:
                    value = builder.load(builder.gep(row[r], [a_at]))
                    splats[r] = splat(builder, value, factors)
                for v in range(vectors):
                    pointer = vector_at(panel, builder.add(p_at, _INDEX(v * width)), factors)
                    if ahead and rows <= FETCHING_ROWS:
                        fetch_line(builder, builder.gep(pointer, [_INDEX(ahead)]))
                    values = builder.load(pointer, align=item)
                    for r in numbers:
                        new[r, v] = multiply_add(builder, splats[r], values, sums[r, v])
                following = builder.add(k, _INDEX(1))
                k.add_incoming(following, builder.block)
                for place, phi in sums.items():
                    phi.add_incoming(new[place], builder.block)
                again = builder.icmp_signed("<", following, end)
                unroll(builder, builder.cbranch(again, product_loop, add_up))

                builder.position_at_end(add_up)
                parts = {}
                for place, value in new.items():
                    part = builder.phi(vector)
                    part.add_incoming(ir.Constant(vector, [0.0] * width), chunk_loop)
                    part.add_incoming(value, product_loop)
                    parts[place] = part
                at_start = builder.icmp_signed("==", start, _INDEX(0))
                base = builder.select(at_start, init, out)
                base_at = builder.select(at_start, init_at, out_at)
                base_step = builder.select(at_start, init_step, out_step)
                for r in numbers:
                    from_at = builder.add(base_at, builder.mul(base_step, _INDEX(r)))
                    to_at = builder.add(out_at, builder.mul(out_step, _INDEX(r)))
                    for v in range(vectors):
                        old = builder.load(
                            vector_at(base, builder.add(from_at, _INDEX(v * width))), align=item
                        )
                        total = builder.fadd(old, parts[r, v])
                        pointer = vector_at(out, builder.add(to_at, _INDEX(v * width)))
                        builder.store(total, pointer, align=item)
                start.add_incoming(end, add_up)
                builder.cbranch(builder.icmp_signed("<", end, count), chunk_loop, done)
                builder.position_at_end(done)

            halved = pairs and not isa.pairs
            together = max(1, (isa.registers - 4) // (vectors + 2)) if halved else rows
            # Pairs that have to be taken apart need registers for both halves of each row.
            for first in range(0, rows, together):
                sum_up(range(first, min(rows, first + together)))
            return context.get_dummy_value()

        return signature, codegen

    return product  # type: ignore[no-any-return]
