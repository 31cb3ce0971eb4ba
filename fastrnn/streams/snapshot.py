"""The state of a stream, as it is kept and carried."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fastrnn.arrays import Array
from fastrnn.files.budget import Budget
from fastrnn.files.safetensors import check_header
from fastrnn_kernels import handlers

_KEY, _FORMAT = "fastrnn-snapshot", 1


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a stream at one moment; what happens later does not change it.

    model: says which model it is of, by its kind, sizes and parameters.
    arrays: by number of the layer, `"0.h"` (B, P), and `"0.rest"`, its other states (an LSTM's
        c), one after the other (states but h, B, H).
    """

    model: str
    arrays: Mapping[str, Array] = field(repr=False)

    def __post_init__(self) -> None:
        """Keep others from changing it."""
        for array in self.arrays.values():
            array.flags.writeable = False
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))

    def to_bytes(self) -> bytes:
        """The snapshot as bytes, in the safetensors format."""
        from safetensors.numpy import save

        description = json.dumps({"format": _FORMAT, "model": self.model})
        return save(dict(self.arrays), {_KEY: description})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """The snapshot that `to_bytes` wrote.

        Raises TypeError for what is not bytes, ValueError for what is cut short or no snapshot.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is a {type(data).__name__}, wanted bytes")
        data = bytes(data)
        many = int.from_bytes(data[:8], "little")
        try:
            if many < len(data):  # else safetensors tells
                check_header(data[8 : 8 + many], Budget(len(data)))
            arrays = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            description = json.loads(header["__metadata__"][_KEY])
            number, model = description["format"], description["model"]
        except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            handlers.pass_on(error)
            raise ValueError(f"data is no whole snapshot of fastrnn: {error!r}") from None
        if number != _FORMAT or not isinstance(model, str):
            raise ValueError(f"data has format {number!r}, this version reads {_FORMAT}")
        return cls(model, {name: array.copy() for name, array in arrays.items()})

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as its bytes."""
        return Snapshot.from_bytes, (self.to_bytes(),)
