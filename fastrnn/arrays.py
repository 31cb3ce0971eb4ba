"""What arrays, shapes and states are called in signatures."""

from typing import Any, TypeVar

from numpy.typing import NDArray

#: An array: NumPy's, or one of the same form on a GPU.
Array = NDArray[Any]
Shape = tuple[int, ...]
#: A model's state as its user has it: an array, or a tuple of them.
State = TypeVar("State")
