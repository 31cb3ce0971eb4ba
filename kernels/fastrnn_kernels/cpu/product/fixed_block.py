"""Products of a step: register blocks whose sizes are known when they are compiled.

As `register_block`, with the same sums in the same order (chains of CHUNK products, each begun
at 0), but for a few panels at a time: a single row has too few sums in one panel to keep
the multipliers busy while it waits for them.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.llvm import data_of, fused_multiply_add, lanes_of, splat, unroll
from fastrnn_kernels.cpu.product.block import CHUNK
from fastrnn_kernels.cpu.product.storage import GROUP, INT8, loaded

#: Products up to which a chain is written out, without a loop.
STRAIGHT = 16

_INDEX = ir.IntType(64)


def fixed_block(
    rows: int, panels: int, vectors: int, count: int, storage: str, *, from_zero: bool = False
) -> Callable[..., Any]:
    """A block of `rows` rows, `panels` panels of so many vectors and `count` products to a sum.

        (out, out_at, row_step, panel_step, init, init_at, init_row_step, init_panel_step,
         a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at)

    out[r, p, v] = init[r, p, v] + Σ_k a[r, k] panel[p, k, v]. Rows and panels of `out` and
    `init` lie row_step and panel_step apart, rows of `a` a_step, panels weights_step; in
    elements. `out` may be `init`, which is not read but taken for zeros if `from_zero`.
    Panels are stored as `storage` says (`storage.py`); scales are read for int8 alone.
    """
    sums = [(r, p, v) for r in range(rows) for p in range(panels) for v in range(vectors)]
    group = GROUP[storage]

    @intrinsic
    def product(  # type: ignore[no-untyped-def]
        typingctx, out, out_at, row_step, panel_step, init, init_at, init_row_step, init_panel_step,
        a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at,
    ):  # fmt: skip
        number, width = types.int64, lanes_of(out.dtype)
        signature = types.void(
            out, number, number, number, init, number, number, number,
            a, number, number, panel, number, number, scales, number,
        )  # fmt: skip

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            (out, out_at, row_step, panel_step, init, init_at, init_row_step, init_panel_step,
             a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at) = args  # fmt: skip
            out, init, a, panel, scales = (
                data_of(context, builder, signature.args[k], args[k]) for k in (0, 4, 8, 11, 14)
            )
            item = signature.args[0].dtype.bitwidth // 8
            vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), width)
            zero = ir.Constant(vector, [0.0] * width)

            def moved(base: Any, *offsets: Any) -> Any:
                at = offsets[0]
                for offset in offsets[1:]:
                    at = builder.add(at, offset)
                return builder.gep(base, [at])

            def vector_at(base: Any, *offsets: Any) -> Any:
                return builder.bitcast(moved(base, *offsets), vector.as_pointer())

            row = [moved(a, a_at, builder.mul(a_step, _INDEX(r))) for r in range(rows)]
            column = [
                moved(panel, panel_at, builder.mul(weights_step, _INDEX(p))) for p in range(panels)
            ]

            def added(element: Any, chains: dict[Any, Any], many: int = group) -> dict[Any, Any]:
                """The chains with the products of one element of the panels' columns more."""
                first = builder.mul(element, _INDEX(group))
                at, new = builder.mul(element, _INDEX(vectors * width)), dict(chains)
                factors = [
                    [
                        splat(builder, builder.load(moved(row[r], first, _INDEX(k))), vector)
                        for k in range(many)
                    ]
                    for r in range(rows)
                ]
                for p in range(panels):
                    for v in range(vectors):
                        found = loaded(
                            builder, moved(column[p], at, _INDEX(v * width)), storage, vector
                        )
                        for r in range(rows):
                            for k in range(many):
                                new[r, p, v] = fused_multiply_add(
                                    builder, factors[r][k], found[k], new[r, p, v]
                                )
                return new

            def offset(at: Any, row_step: Any, panel_step: Any, r: int, p: int, v: int) -> Any:
                at = builder.add(at, builder.mul(row_step, _INDEX(r)))
                at = builder.add(at, builder.mul(panel_step, _INDEX(p)))
                return builder.add(at, _INDEX(v * width))

            def looped(first: int, last: int) -> dict[Any, Any]:
                """Chains over elements first to last, as a loop."""
                before = builder.block
                loop = builder.append_basic_block("product")
                after = builder.append_basic_block("added")
                builder.branch(loop)
                builder.position_at_end(loop)
                element = builder.phi(_INDEX)
                element.add_incoming(_INDEX(first), before)
                phis = {place: builder.phi(vector) for place in sums}
                for phi in phis.values():
                    phi.add_incoming(zero, before)
                chains = added(element, phis)
                following = builder.add(element, _INDEX(1))
                element.add_incoming(following, builder.block)
                for place in sums:
                    phis[place].add_incoming(chains[place], builder.block)
                again = builder.icmp_signed("<", following, _INDEX(last))
                unroll(builder, builder.cbranch(again, loop, after))
                builder.position_at_end(after)
                return chains

            for first in range(0, count, CHUNK):
                last = min(count, first + CHUNK)
                begin, end = first // group, last // group
                if last - first > STRAIGHT:
                    chains = looped(begin, end)
                else:
                    chains = dict.fromkeys(sums, zero)
                    for element in range(begin, end):
                        chains = added(_INDEX(element), chains)
                if last % group:
                    chains = added(_INDEX(end), chains, 1)
                for place in sums:
                    target = vector_at(out, offset(out_at, row_step, panel_step, *place))
                    if first > 0:
                        so_far = builder.load(target, align=item)
                    elif from_zero:
                        so_far = zero
                    else:
                        at = offset(init_at, init_row_step, init_panel_step, *place)
                        so_far = builder.load(vector_at(init, at), align=item)
                    if storage == INT8:
                        _, p, v = place
                        scale_at = vector_at(scales, scales_at, _INDEX((p * vectors + v) * width))
                        scale = builder.load(scale_at, align=item)
                        total = fused_multiply_add(builder, scale, chains[place], so_far)
                    else:
                        total = builder.fadd(so_far, chains[place])
                    builder.store(total, target, align=item)
            return context.get_dummy_value()

        return signature, codegen

    return product  # type: ignore[no-any-return]
