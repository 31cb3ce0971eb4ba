"""How often this process is a child of one that had fastrnn.

What a thread of the parent held, a lock, a stream, a board of helpers, nobody will give back in the
child. Whoever has such a thing asks here whether it is still of this process, and renews it if not.
"""

import os
from functools import partial

_forks: list[None] = []
if hasattr(os, "register_at_fork"):
    # A function of C's: what a signal's handler raises in one of Python's would be lost.
    os.register_at_fork(after_in_child=partial(_forks.append, None))


def forks() -> int:
    """A number that grows by one in each child."""
    return len(_forks)
