"""Products of a step: register blocks for a few rows and panels.

As `register_block`, with the same sums in the same order (chains of CHUNK products, each begun
at 0), but for a few panels at a time: a single row has too few sums in one panel to keep
the multipliers busy while it waits for them. How many products make a sum is known when they are
compiled, or told with each call: the bits are the same.
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
    rows: int,
    panels: int,
    vectors: int,
    known: int | None,
    storage: str,
    *,
    from_zero: bool = False,
) -> Callable[..., Any]:
    """A block of `rows` rows, `panels` panels of so many vectors and `count` products to a sum.

        (out, out_at, row_step, panel_step, init, init_at, init_row_step, init_panel_step,
         a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at, count)

    known: the count, which is then not read when called; None if it is.

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
        a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at, count,
    ):  # fmt: skip
        number, width = types.int64, lanes_of(out.dtype)
        signature = types.void(
            out, number, number, number, init, number, number, number,
            a, number, number, panel, number, number, scales, number, number,
        )  # fmt: skip

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            (out, out_at, row_step, panel_step, init, init_at, init_row_step, init_panel_step,
             a, a_at, a_step, panel, panel_at, weights_step, scales, scales_at,
             count) = args  # fmt: skip
            out, init, a, panel, scales = (
                data_of(context, builder, signature.args[k], args[k]) for k in (0, 4, 8, 11, 14)
            )
            item = signature.args[0].dtype.bitwidth // 8
            vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), width)
            zero = ir.Constant(vector, [0.0] * width)
            zeros = dict.fromkeys(sums, zero)

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

            def looped(first: Any, last: Any, *, empty: bool = False) -> dict[Any, Any]:
                """Chains over elements first to last, as a loop; `empty` if there may be none."""
                before = builder.block
                loop = builder.append_basic_block("product")
                after = builder.append_basic_block("added")
                if empty:
                    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)
                else:
                    builder.branch(loop)
                builder.position_at_end(loop)
                element = builder.phi(_INDEX)
                element.add_incoming(first, before)
                phis = {place: builder.phi(vector) for place in sums}
                for phi in phis.values():
                    phi.add_incoming(zero, before)
                chains = added(element, phis)
                following = builder.add(element, _INDEX(1))
                end = builder.block
                element.add_incoming(following, end)
                for place in sums:
                    phis[place].add_incoming(chains[place], end)
                again = builder.icmp_signed("<", following, last)
                unroll(builder, builder.cbranch(again, loop, after))
                builder.position_at_end(after)
                return joined({end: chains, before: zeros}) if empty else chains

            def joined(ways: dict[Any, dict[Any, Any]]) -> dict[Any, Any]:
                """The chains by the block that they come from."""
                phis = {place: builder.phi(vector) for place in sums}
                for block, chains in ways.items():
                    for place in sums:
                        phis[place].add_incoming(chains[place], block)
                return phis

            def add_up(chains: dict[Any, Any], before: Callable[[Any, Any], Any]) -> None:
                """Add chains to the sums so far, which `before` gives of their place."""
                for place in sums:
                    target = vector_at(out, offset(out_at, row_step, panel_step, *place))
                    so_far = before(place, target)
                    if storage == INT8:
                        _, p, v = place
                        scale_at = vector_at(scales, scales_at, _INDEX((p * vectors + v) * width))
                        scale = builder.load(scale_at, align=item)
                        total = fused_multiply_add(builder, scale, chains[place], so_far)
                    else:
                        total = builder.fadd(so_far, chains[place])
                    builder.store(total, target, align=item)

            def initial(place: Any) -> Any:
                if from_zero:
                    return zero
                at = offset(init_at, init_row_step, init_panel_step, *place)
                return builder.load(vector_at(init, at), align=item)

            def kept(place: Any, target: Any) -> Any:
                return builder.load(target, align=item)

            def of_known(count: int) -> None:
                for first in range(0, count, CHUNK):
                    last = min(count, first + CHUNK)
                    begin, end = first // group, last // group
                    if last - first > STRAIGHT:
                        chains = looped(_INDEX(begin), _INDEX(end))
                    else:
                        chains = zeros
                        for element in range(begin, end):
                            chains = added(_INDEX(element), chains)
                    if last % group:
                        chains = added(_INDEX(end), chains, 1)
                    add_up(chains, kept if first > 0 else lambda place, target: initial(place))

            def of_any(count: Any) -> None:
                entry = builder.block
                chunk = builder.append_basic_block("chunk")
                done = builder.append_basic_block("done")
                builder.branch(chunk)
                builder.position_at_end(chunk)
                first = builder.phi(_INDEX)
                first.add_incoming(_INDEX(0), entry)
                last = builder.add(first, _INDEX(CHUNK))
                last = builder.select(builder.icmp_signed("<", last, count), last, count)
                begin, end = (builder.udiv(at, _INDEX(group)) for at in (first, last))
                chains = looped(begin, end, empty=True)
                if group > 1:
                    whole, odd = builder.block, builder.append_basic_block("odd")
                    both = builder.append_basic_block("both")
                    left = builder.urem(last, _INDEX(group))
                    builder.cbranch(builder.icmp_signed("!=", left, _INDEX(0)), odd, both)
                    builder.position_at_end(odd)
                    one_more = added(end, chains, 1)
                    odd = builder.block
                    builder.branch(both)
                    builder.position_at_end(both)
                    chains = joined({whole: chains, odd: one_more})
                at_first = builder.icmp_signed("==", first, _INDEX(0))

                def before(place: Any, target: Any) -> Any:
                    if from_zero:
                        # What is there was never written: it must not be counted, not even as NaN.
                        return builder.select(at_first, zero, kept(place, target))
                    at = offset(init_at, init_row_step, init_panel_step, *place)
                    origin = builder.select(at_first, vector_at(init, at), target)
                    return builder.load(origin, align=item)

                add_up(chains, before)
                first.add_incoming(last, builder.block)
                builder.cbranch(builder.icmp_signed("<", last, count), chunk, done)
                builder.position_at_end(done)

            if known is None:
                of_any(count)
            else:
                of_known(known)
            return context.get_dummy_value()

        return signature, codegen

    return product  # type: ignore[no-any-return]
