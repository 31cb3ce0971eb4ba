"""Products of pairs of bfloat16 by the matrix unit of an x86 CPU (AMX).

Eight registers hold tiles of up to 16 rows of 64 bytes. One instruction multiplies two and adds
to a third: C (m, 16 columns of float32) += A (m, 16 pairs) B (16 pairs, 16 columns). Rows of
products are A's rows, a panel's rows are B's as they stand (`pairs.py`), each vector of columns a
tile.

    up to 16 rows           up to 32 rows, two vectors of columns at a time
    0 1 2 3   C             0 2   C of rows 0 to 15
    4         A             1 3   C of the rows from 16 on
    5 6 7     B             4 5   A of these, 6 7 B

A sum adds the pairs that fill no whole tile first, then tile by tile: whatever the rows that it is
computed with. The processor rounds each addition to nearest, and takes denormals for zeros.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.instruction_set import TILE_ROWS
from fastrnn_kernels.cpu.isa.llvm import lanes_of
from fastrnn_kernels.cpu.product.block import kinds_of_arguments

#: Pairs of a row of A.
TILE_PAIRS = 16
_TILE, _INDEX, _NOTHING = ir.IntType(8), ir.IntType(64), ir.VoidType()
_CONFIG = ir.VectorType(_INDEX, 8)
#: Bytes of a row of a tile, for four tiles as the configuration has them.
_FULL_ROWS = 0x0040_0040_0040_0040
#: Where in what `use_tiles` gives the shape of the tiles stands, in words.
_SHAPE = 16


def _call(builder: Any, name: str, kinds: list[Any], args: list[Any]) -> None:
    kind = ir.FunctionType(_NOTHING, kinds)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    builder.call(function, args)


def _move(builder: Any, name: str, tile: int, pointer: Any, step: Any) -> None:
    """Load or store a tile whose rows lie `step` bytes from each other."""
    pointer = builder.bitcast(pointer, cgutils.voidptr_t)
    kinds = [_TILE, cgutils.voidptr_t, _INDEX]
    _call(builder, name, kinds, [_TILE(tile), pointer, step])


def _multiply_add(builder: Any, c: int, a: int, b: int) -> None:
    _call(builder, "tdpbf16ps", [_TILE] * 3, [_TILE(c), _TILE(a), _TILE(b)])


def _configure(
    builder: Any, unit: Any, many: Any, rows: list[Any], pairs: Any, a_tiles: list[int]
) -> None:
    """Give the eight tiles their rows, and those of A their pairs, unless they have them already.

    unit: see `use_tiles`; many: rows in all. To configure takes as long as twenty products.
    """
    shape = builder.or_(builder.shl(many, _INDEX(8)), pairs)
    shape_at = builder.gep(builder.inttoptr(unit, _INDEX.as_pointer()), [_INDEX(_SHAPE)])
    with builder.if_then(builder.icmp_signed("!=", builder.load(shape_at), shape), likely=False):
        builder.store(shape, shape_at)
        place = builder.inttoptr(builder.add(unit, _INDEX(64)), _CONFIG.as_pointer())
        _set(builder, place, rows, pairs, a_tiles)


def _set(builder: Any, place: Any, rows: list[Any], pairs: Any, a_tiles: list[int]) -> None:
    b_tiles = range(max(a_tiles) + 1, 8)
    heights = _INDEX(0)
    for tile, many in enumerate(rows):
        heights = builder.or_(heights, builder.shl(many, _INDEX(8 * tile)))
    for tile in b_tiles:
        heights = builder.or_(heights, builder.shl(pairs, _INDEX(8 * tile)))
    widths = _INDEX(_FULL_ROWS & ~sum(0xFFFF << 16 * (tile - 4) for tile in a_tiles))
    for tile in a_tiles:
        bytes_of_row = builder.mul(pairs, _INDEX(4))
        widths = builder.or_(widths, builder.shl(bytes_of_row, _INDEX(16 * (tile - 4))))
    words = ir.Constant(_CONFIG, [1, 0, _FULL_ROWS, 0, 0, 0, 0, 0])  # the first: palette 1
    words = builder.insert_element(words, widths, _INDEX(3))
    words = builder.insert_element(words, heights, _INDEX(6))
    builder.store(words, place, align=64)
    pointer = builder.bitcast(place, cgutils.voidptr_t)
    _call(builder, "ldtilecfg", [cgutils.voidptr_t], [pointer])


def tile_block(vectors: int) -> Callable[..., Any]:
    """A function `(unit, rows, *arguments of a register block)`, of pairs, of up to 32 rows.

    unit: of the thread, what `use_tiles` gave.
    Rows of `a` lie one like the next from each other, and their pairs one beside the other:
    `a_step` is 1.
    """

    @intrinsic
    def product(  # type: ignore[no-untyped-def]
        typingctx, unit, rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        arguments = kinds_of_arguments(out, init, a, rows_at, panel)
        signature = types.void(types.int64, types.int64, *arguments)
        width = lanes_of(out.dtype)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            (unit, rows, out, out_at, out_step, init, init_at, init_step,
             a, rows_at, rows_first, _, panel, panel_at, panel_step, count) = args  # fmt: skip
            full = _INDEX(TILE_ROWS)  # and as many pairs
            whole = builder.sdiv(count, _INDEX(TILE_PAIRS))
            left = builder.srem(count, _INDEX(TILE_PAIRS))

            def in_bytes(step: Any) -> Any:
                return builder.mul(step, _INDEX(4))

            first_row = builder.gep(rows_at, [rows_first])
            a = builder.gep(a, [builder.load(first_row)])
            several = builder.icmp_signed(">", rows, _INDEX(1))
            second = builder.select(several, builder.gep(first_row, [_INDEX(1)]), first_row)
            a_rows = in_bytes(builder.sub(builder.load(second), builder.load(first_row)))
            panel = builder.gep(panel, [panel_at])
            panel_rows = in_bytes(panel_step)

            def sums(groups: list[Any], columns: range) -> None:
                """Of rows in groups of up to 16, for some vectors of columns."""
                two = len(groups) == 2
                a_tiles = [4, 5] if two else [4]
                c_of = {(g, v): 2 * i + g if two else v for i, v in enumerate(columns)
                        for g in range(len(groups))}  # fmt: skip
                heights = [*groups * 2, *groups] if two else [*groups * 5]

                def move_c(name: str, base: Any, at: Any, step: Any) -> None:
                    for (g, v), tile in c_of.items():
                        at_row = builder.add(at, builder.mul(step, _INDEX(TILE_ROWS * g)))
                        pointer = builder.gep(base, [builder.add(at_row, _INDEX(v * width))])
                        _move(builder, name, tile, pointer, in_bytes(step))

                def turn(k: Any) -> None:
                    """The pairs from k on, as many as a tile has."""
                    for g in range(len(groups)):
                        row = builder.mul(a_rows, _INDEX(TILE_ROWS * g // 4))  # in pairs
                        pointer = builder.gep(a, [builder.add(k, row)])
                        _move(builder, "tileloadd64", a_tiles[g], pointer, a_rows)
                    b_row = builder.gep(panel, [builder.mul(k, panel_step)])
                    for i, v in enumerate(columns):
                        b = 6 + i if two else 5 + i % 3
                        pointer = builder.gep(b_row, [_INDEX(v * width)])
                        _move(builder, "tileloadd64", b, pointer, panel_rows)
                        for g in range(len(groups)):
                            _multiply_add(builder, c_of[g, v], a_tiles[g], b)

                with builder.if_then(builder.icmp_signed(">", left, _INDEX(0))):
                    _configure(builder, unit, rows, heights, left, a_tiles)
                    move_c("tileloadd64", init, init_at, init_step)
                    turn(builder.mul(whole, _INDEX(TILE_PAIRS)))
                    move_c("tilestored64", out, out_at, out_step)
                with builder.if_then(builder.icmp_signed(">", whole, _INDEX(0))):
                    _configure(builder, unit, rows, heights, full, a_tiles)
                    from_init = builder.icmp_signed("==", left, _INDEX(0))
                    base = builder.select(from_init, init, out)
                    base_at = builder.select(from_init, init_at, out_at)
                    base_step = builder.select(from_init, init_step, out_step)
                    move_c("tileloadd64", base, base_at, base_step)
                    with cgutils.for_range(builder, whole) as loop:
                        turn(builder.mul(loop.index, _INDEX(TILE_PAIRS)))
                    move_c("tilestored64", out, out_at, out_step)

            with builder.if_else(builder.icmp_signed("<=", rows, full)) as (few, many):
                with few:
                    sums([rows], range(vectors))
                with many:
                    rest = builder.sub(rows, full)
                    for v in range(0, vectors, 2):
                        sums([full, rest], range(v, min(v + 2, vectors)))
            return context.get_dummy_value()

        return signature, codegen

    return product  # type: ignore[no-any-return]


@intrinsic
def use_tiles(typingctx):  # type: ignore[no-untyped-def]
    """Begin to use the matrix unit in this thread: an address, for products and `leave_tiles`.

    There lie how the tiles were configured before, what they are now, and which shape that is.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        with builder.goto_entry_block():
            memory = builder.alloca(_CONFIG, size=_INDEX(3))
            memory.align = 64
        place = builder.bitcast(memory, cgutils.voidptr_t)
        _call(builder, "sttilecfg", [cgutils.voidptr_t], [place])
        shape_at = builder.gep(builder.bitcast(memory, _INDEX.as_pointer()), [_INDEX(_SHAPE)])
        builder.store(_INDEX(0), shape_at)
        return builder.ptrtoint(place, _INDEX)

    return types.int64(), codegen


@intrinsic
def leave_tiles(typingctx, unit):  # type: ignore[no-untyped-def]
    """Leave the tiles configured as they were found, or free."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = builder.inttoptr(args[0], cgutils.voidptr_t)
        palette = builder.load(place)
        used = builder.icmp_unsigned("!=", palette, _TILE(0))
        with builder.if_else(used) as (configured, free):
            with configured:
                _call(builder, "ldtilecfg", [cgutils.voidptr_t], [place])
            with free:
                _call(builder, "tilerelease", [], [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
