"""Of a row's steps: at which time they are, and where a sequence begins anew."""

from fastrnn_kernels.cuda.isa.values import device


@device
def time_of(length, s, reverse):  # type: ignore[no-untyped-def]
    """The time of a row's step."""
    return length - 1 - s if reverse else s


@device
def begins_anew(reset, b, B, length, s, reverse, resetting):  # type: ignore[no-untyped-def]
    """Whether a boundary lies right before a row's step: the reverse comes from behind it."""
    if not resetting or s == 0:
        return False
    t = time_of(length, s, reverse)
    return reset[(t + 1 if reverse else t) * B + b] != 0
