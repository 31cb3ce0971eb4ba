"""Powers of two, exponents and signs by the bits of floats: exact, and an operation or two each.

Each takes a number or a register of them, as the operations of `vector.py` do.
"""

from typing import Any, NamedTuple

from llvmlite import ir

from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.llvm import suffix_of
from fastrnn_kernels.cpu.isa.vector import call, elementwise, halves_of, joined


class _Layout(NamedTuple):
    width: int
    mantissa: int  # bits of it
    bias: int
    sqrt_half: int  # the bits of the square root of 1/2

    def power(self, n: int) -> int:
        """The bits of 2^n."""
        return (self.bias + n) << self.mantissa


_FLOAT32 = _Layout(32, 23, 127, 0x3F3504F3)
_FLOAT64 = _Layout(64, 52, 1023, 0x3FE6A09E667F3BCD)


def _layout_of(kind: Any) -> _Layout:
    return _FLOAT32 if suffix_of(kind).endswith("f32") else _FLOAT64


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _bits(builder: Any, value: Any) -> Any:
    """The bits of floats as integers."""
    kind = value.type
    integer = ir.IntType(_layout_of(kind).width)
    vector = isinstance(kind, ir.VectorType)
    return builder.bitcast(value, ir.VectorType(integer, kind.count) if vector else integer)


def _power(builder: Any, n: Any, kind: Any) -> Any:
    """2^n, an integer, as a normal number."""
    layout = _layout_of(kind)
    biased = builder.add(n, _constant(n.type, layout.bias))
    return builder.bitcast(builder.shl(biased, _constant(n.type, layout.mantissa)), kind)


def _power_of_two(builder: Any, shifted: Any, shift: Any) -> Any:
    n = builder.sub(*(_bits(builder, part) for part in (shifted, shift)))
    return _power(builder, n, shifted.type)


def _times_power(builder: Any, value: Any, n: Any, shifted: Any, shift: Any) -> Any:
    kind = value.type
    if isinstance(kind, ir.VectorType) and current().scales:
        # One instruction; what it rounds, it rounds once, as the two products do.
        bits, name = (16, "ps") if suffix_of(kind.element) == "f32" else (8, "pd")
        if kind.count > bits:
            parts = [halves_of(builder, part) for part in (value, n, shifted, shift)]
            first, second = (_times_power(builder, *half) for half in zip(*parts, strict=True))
            return joined(builder, first, second)
        name = f"llvm.x86.avx512.mask.scalef.{name}.512"
        everywhere, nearest = ir.IntType(bits)(-1), ir.IntType(32)(4)
        return call(builder, name, kind, [value, n, value, everywhere, nearest])
    count = builder.sub(*(_bits(builder, part) for part in (shifted, shift)))
    half = builder.ashr(count, _constant(count.type, 1))
    for part in (half, builder.sub(count, half)):
        value = builder.fmul(value, _power(builder, part, kind))
    return value


def _from_sqrt_half(builder: Any, x: Any) -> tuple[_Layout, Any]:
    """The bits of x as if exponents changed at the square root of 1/2, and not at 1."""
    layout, bits = _layout_of(x.type), _bits(builder, x)
    return layout, builder.add(bits, _constant(bits.type, layout.power(0) - layout.sqrt_half))


def _exponent(builder: Any, x: Any) -> Any:
    # Below the bits of a power so large that its last place is 1, an integer is a float: not all
    # instruction sets convert 64 bits.
    layout, bits = _from_sqrt_half(builder, x)
    biased = builder.lshr(bits, _constant(bits.type, layout.mantissa))
    above = builder.or_(biased, _constant(bits.type, layout.power(layout.mantissa)))
    known = float((1 << layout.mantissa) + layout.bias)
    return builder.fsub(builder.bitcast(above, x.type), _constant(x.type, known))


def _mantissa(builder: Any, x: Any) -> Any:
    layout, bits = _from_sqrt_half(builder, x)
    kept = builder.and_(bits, _constant(bits.type, (1 << layout.mantissa) - 1))
    return builder.bitcast(builder.add(kept, _constant(bits.type, layout.sqrt_half)), x.type)


def _two_over_power(builder: Any, x: Any, mantissa: Any) -> Any:
    down = builder.sub(*(_bits(builder, part) for part in (mantissa, x)))
    two = _constant(down.type, _layout_of(x.type).power(1))
    return builder.bitcast(builder.add(down, two), x.type)


def _negated_where_negative(builder: Any, value: Any, x: Any) -> Any:
    bits = _bits(builder, x)
    sign = builder.and_(bits, _constant(bits.type, 1 << (_layout_of(x.type).width - 1)))
    return builder.bitcast(builder.xor(_bits(builder, value), sign), value.type)


def _negated_where_odd(builder: Any, value: Any, shifted: Any) -> Any:
    bits = _bits(builder, shifted)
    sign = builder.shl(bits, _constant(bits.type, _layout_of(value.type).width - 1))
    return builder.bitcast(builder.xor(_bits(builder, value), sign), value.type)


#: 2^n of shifted = n + shift, where shift is so large that the sum's lowest bits are those
#: of n: so n comes without a conversion. 2^n has to be a normal number.
power_of_two = elementwise(_power_of_two, 2)
#: value * 2^n, of (value, n, shifted, shift); right for denormal results too
times_power_of_two = elementwise(_times_power, 4)
#: k of x = m 2^k with sqrt(1/2) <= m < sqrt(2), where x is a positive normal number
exponent = elementwise(_exponent, 1)
#: the m beside it
mantissa = elementwise(_mantissa, 1)
#: 2 / 2^k of (x, m), or 0 where that would be no normal number
two_over_power = elementwise(_two_over_power, 2)
#: value with its sign changed where the n of shifted = n + shift is odd, of (value, shifted)
negated_where_odd = elementwise(_negated_where_odd, 2)
#: value with its sign changed where x has one, of (value, x)
negated_where_negative = elementwise(_negated_where_negative, 2)
