"""torch.compile takes fastrnn's layers into its graphs.

Its tracer refuses each instance of torch's RNN, LSTM and GRU before it looks at what it does, but
under `torch._dynamo.config.allow_rnn`: a graph of torch's own operations has a copy of them for
each time step. fastrnn's are one operator, so for them that is allowed here, and for them alone.
The tracer is imported by torch when something is first compiled, and takes longer to import than
all of fastrnn: so nothing is done before it is.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from fastrnn.torch.module import Module

_TRACER = "torch._dynamo.variables.builder"


class _WhenImported(MetaPathFinder):
    """Finds the tracer, and nothing else."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _TRACER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Allowing(spec.loader)
        return spec


class _Allowing(Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:  # who asks for the loader later gets its own
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _allow(module)


def _allow(tracer: Any) -> None:
    wrap = getattr(getattr(tracer, "VariableBuilder", None), "wrap_module", None)
    if wrap is None or not hasattr(getattr(tracer, "config", None), "allow_rnn"):
        return  # another version of torch: graphs break at layers

    def wrap_module(self: Any, value: Any) -> Any:
        if not isinstance(value, Module):
            return wrap(self, value)
        with tracer.config.patch(allow_rnn=True):
            return wrap(self, value)

    tracer.VariableBuilder.wrap_module = wrap_module


def allow() -> None:
    """Let the tracer have fastrnn's layers, now or when it is imported."""
    if _TRACER in sys.modules:
        _allow(sys.modules[_TRACER])
    else:
        sys.meta_path.insert(0, _WhenImported())
