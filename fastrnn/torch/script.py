"""How TorchScript takes fastrnn's modules: it compiles torch's own forward, over their parameters.

TorchScript asks the module itself what to compile: `__overloads__` says that `forward` has forms
under other names, and these are methods made ready for it, of torch's own class. So a model is
compiled as it stands. By `__prepare_scriptable__` a module may hand over another one in its place,
but torch puts that one into the caller's model, for good: only what stands in no model does so.
"""

import sys
from copy import copy
from typing import Any

import torch
from torch._jit_internal import FunctionModifiers
from torch.jit import _recursive

_TORCH = torch.nn.LSTM.__module__
#: By torch's class.
_forms: dict[type, list["_Ready"]] = {}


class _Ready(_recursive.ScriptMethodStub):  # type: ignore[misc]
    """A method ready to be compiled, which TorchScript takes for one to be exported."""

    __slots__ = ()
    _torchscript_modifier = FunctionModifiers.EXPORT

    def __call__(self) -> None:
        """Is looked at, never called."""


def plain(module: Any) -> Any:
    """torch's own module over the same parameters."""
    found = copy(module)
    found.__class__ = _own_class(module)
    return found


def prepared(module: Any) -> Any:
    """What `__prepare_scriptable__` gives: torch's own module where it stands in no model.

    Raises RuntimeError for modules that torch has not: of cells of one's own, or with a learned
    initial state.
    """
    if _own_class(module) is None:
        raise RuntimeError(
            f"TorchScript cannot compile the equations of {type(module).__name__}: torch.jit.trace "
            "and torch.export take it"
        )
    if module.initial_state == "learned":
        raise RuntimeError(
            "TorchScript compiles torch's own forward, which has no learned initial state: "
            "torch.jit.trace and torch.export take it"
        )
    others = sys._getframe(2).f_locals.get("memo")  # what torch has prepared of the model so far
    return plain(module) if others == {} else module


def _own_class(module: Any) -> Any:
    """torch's class that a module stands for, None if there is none."""
    mro = type(module).__mro__
    return next((one for one in mro if one.__module__ == _TORCH and "forward" in vars(one)), None)


def _forms_of(module: Any) -> list[_Ready]:
    kind = _own_class(module)
    if kind not in _forms:
        own = plain(module)
        overloads = _recursive.get_overload_annotations(own, _recursive.jit_ignored_properties(own))
        stubs = _recursive.make_stubs_for_overloads(overloads)
        _forms[kind] = [
            _Ready(*one) for one in stubs or [_recursive.make_stub(own.forward, _name(0))]
        ]
    return _forms[kind]


def _name(k: int) -> str:
    return f"forward__{k}"


class _Told:
    """What TorchScript is told of a module; nothing where a subclass has a forward of its own."""

    def __set_name__(self, owner: Any, name: str) -> None:
        self._owner = owner

    def _forms(self, module: Any, kind: Any) -> list[_Ready]:
        own = module is not None and kind.forward is self._owner.forward
        return _forms_of(module) if own and _own_class(module) is not None else []


class Form(_Told):
    """Of a module, the form of `forward` with a number, or None if there are less."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __get__(self, module: Any, kind: type) -> Any:
        """The form."""
        if sys._getframe(1).f_code.co_name == "module_has_exports":
            return None  # who traces a module is to trace it, and not to compile it beside
        forms = self._forms(module, kind)
        return forms[self._number] if self._number < len(forms) else None


class Overloads(_Told):
    """Of a module, the names of all forms of `forward`."""

    def __get__(self, module: Any, kind: type) -> dict[str, list[str]]:
        """The names by the method's."""
        names = [_name(k) for k in range(len(self._forms(module, kind)))]
        return {"forward": names} if names else {}
