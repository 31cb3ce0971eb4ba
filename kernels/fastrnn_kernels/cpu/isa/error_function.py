"""erf for the CPU.

Up to |x| = 1, erf x = x + x P(x²). Beyond it is 1 - e^(-x²) Q(1 / (1 + |x|)), where Q is what
remains of 1 - erf, smooth down to its end at infinity. Both are minimax polynomials (Remez) for the
relative error of erf: of degrees 6 and 5 in float32, 2^-29 and 2^-30; of degrees 11 and 13 in
float64, 2^-57 both. They are computed side by side, and one is chosen.
"""

from typing import NamedTuple

from numba import types
from numba.extending import overload

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.bits import power_of_two
from fastrnn_kernels.cpu.isa.exponentials import FORMATS, reduction
from fastrnn_kernels.cpu.isa.inlined import INLINED
from fastrnn_kernels.cpu.isa.polynomials import format_of, polynomial
from fastrnn_kernels.cpu.isa.vector import absolute, copysign, dtype_of, fma, where_at_most


class _Own(NamedTuple):
    high: float  # erf rounds to 1 above
    p: tuple[float, ...]
    q: tuple[float, ...]


_OWN = {
    types.float32: _Own(
        3.95,
        (0.12837917, -0.37612626, 0.112835854, -0.026853813, 0.0051883277, -0.0008010194,
         7.8538644e-05),
        (0.00077458814, 0.5565331, 0.5764763, 0.41217464, -0.9735477, 0.43994492),
    ),
    types.float64: _Own(
        5.95,
        (0.12837916709551256, -0.3761263890318352, 0.11283791670944185, -0.026866170643111503,
         0.005223977606118712, -0.0008548325929323979, 0.00012055293577135585,
         -1.4924712305740118e-05, 1.644713160924535e-06, -1.6206313997772758e-07,
         1.3710981246788567e-08, -7.779469781253706e-10),
        (-8.641946284242683e-06, 0.564532112015337, 0.5579376851885228, 0.3515581481042672,
         -0.8046129855617872, 2.088286155510575, -10.942105340001676, 31.562045597048353,
         -54.92934666006355, 62.98173418975658, -48.418924117206615, 24.047765465485586,
         -6.909385299379766, 0.8496028190926899),
    ),
}  # fmt: skip


@overload(functions.erf, jit_options=INLINED)
def _erf(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    number, reduced, own = f.number, reduction(f), _OWN[dtype_of(x)]
    p, q = polynomial(number, own.p), polynomial(number, own.q)
    shift, high, one = number(f.round_to_integer), number(own.high), number(1)

    def erf(x):  # type: ignore[no-untyped-def]
        size = absolute(x)
        size = where_at_most(high, size, high, size)
        square = size * size
        near = fma(size, p(square), size)
        e, _, shifted = reduced(-square, -square)
        power = power_of_two(shifted, shift)
        far = fma(-fma(power, e, power), q(one / (one + size)), one)
        return copysign(where_at_most(size, one, near, far), x)

    return erf
