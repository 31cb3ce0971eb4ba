"""The matrix unit's instructions in plain vectors, for hosts without it, and to hold it to.

What `fastrnn_kernels/cpu/product/tiles.py` asks for, computed as Intel's manual has it: a product
of tiles sums up the first halves of all pairs, and the second ones, each in one chain of fused
multiply-adds, adds the two, and then the sum that was there.
"""

from contextlib import contextmanager
from dataclasses import replace

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.cpu.isa.llvm import fused_multiply_add, lanes_of, splat
from fastrnn_kernels.cpu.product import tile
from fastrnn_kernels.cpu.product.block import kinds_of_arguments
from fastrnn_kernels.cpu.product.tiles import TILE_PAIRS
from fastrnn_kernels.cpu.sequence import forward

INDEX = ir.IntType(64)


def tile_block(vectors):
    """As `fastrnn_kernels/cpu/product/tiles.py` has it."""

    @intrinsic
    def product(
        typingctx, unit, rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        arguments = kinds_of_arguments(out, init, a, rows_at, panel)
        signature = types.void(types.int64, types.int64, *arguments)
        width = lanes_of(out.dtype)

        def codegen(context, builder, signature, args):
            (_, rows, out, out_at, out_step, init, init_at, init_step,
             a, rows_at, rows_first, _, panel, panel_at, panel_step, count) = args  # fmt: skip
            floats = ir.VectorType(ir.FloatType(), width)
            words = ir.VectorType(ir.IntType(32), width)
            zeros = ir.Constant(floats, [0.0] * width)

            def halves(pairs):
                first = builder.shl(pairs, ir.Constant(words, [16] * width))
                second = builder.and_(pairs, ir.Constant(words, [-(1 << 16)] * width))
                return [builder.bitcast(half, floats) for half in (first, second)]

            def vector(base, at, kind=floats):
                return builder.bitcast(builder.gep(base, [at]), kind.as_pointer())

            with cgutils.for_range(builder, rows) as row:
                r = row.index
                at = builder.gep(rows_at, [builder.add(rows_first, r)])
                a_row = builder.gep(a, [builder.load(at)])
                for v in range(vectors):
                    column = INDEX(v * width)
                    sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(2)]
                    here = builder.add(init_at, builder.mul(init_step, r))
                    old = builder.load(vector(init, builder.add(here, column)), align=4)
                    total = cgutils.alloca_once_value(builder, old)
                    builder.store(old, total)
                    whole = builder.sdiv(count, INDEX(TILE_PAIRS))
                    left = builder.srem(count, INDEX(TILE_PAIRS))
                    some = builder.zext(builder.icmp_signed(">", left, INDEX(0)), INDEX)
                    with cgutils.for_range(builder, builder.add(whole, some)) as turn:
                        # What fills no whole tile comes first.
                        is_left = builder.icmp_signed("<", turn.index, some)
                        number = builder.sub(turn.index, some)
                        number = builder.select(is_left, whole, number)
                        first = builder.mul(number, INDEX(TILE_PAIRS))
                        many = builder.select(is_left, left, INDEX(TILE_PAIRS))
                        for one in sums:
                            builder.store(zeros, one)
                        with cgutils.for_range(builder, many) as pair:
                            k = builder.add(first, pair.index)
                            value = builder.load(builder.gep(a_row, [k]))
                            b_at = builder.add(panel_at, builder.mul(k, panel_step))
                            b = builder.load(
                                vector(panel, builder.add(b_at, column), words), align=4
                            )
                            for half, other, one in zip(
                                halves(splat(builder, value, words)), halves(b), sums, strict=True
                            ):
                                new = fused_multiply_add(builder, half, other, builder.load(one))
                                builder.store(new, one)
                        both = builder.fadd(*(builder.load(one) for one in sums))
                        builder.store(builder.fadd(builder.load(total), both), total)
                    there = builder.add(out_at, builder.mul(out_step, r))
                    place = vector(out, builder.add(there, column))
                    builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return signature, codegen

    return product


@intrinsic
def use_tiles(typingctx):
    return types.int64(), lambda context, builder, signature, args: INDEX(0)


@intrinsic
def leave_tiles(typingctx, unit):
    def codegen(context, builder, signature, args):
        return context.get_dummy_value()

    return types.void(types.int64), codegen


#: This host, with a matrix unit that it has not, or not so.
EMULATED = replace(host.HOST, name=f"{host.HOST.name}-emulated", tiles=True)


@contextmanager
def emulating(monkeypatch):
    """Kernels that are made meanwhile use the emulation."""
    with monkeypatch.context() as patch, host.compiling_for(EMULATED):
        patch.setattr(tile, "tile_block", tile_block)
        patch.setattr(forward, "use_tiles", use_tiles)
        patch.setattr(forward, "leave_tiles", leave_tiles)
        yield
