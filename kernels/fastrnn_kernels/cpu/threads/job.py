"""Jobs: calls of compiled functions, packed so that any thread can make them without Python.

A job is a function, its arguments, and how many times it is to be called: once for each
number below `count`, by whoever is free, or, as a team, by several threads at the same
time. It lies in a record of 64-bit words, behind a header:

    ENTRY     address of the function, which takes its arguments from the record
    COUNT     calls; of a team, the most members worth having
    TEAM      whether it is one
    CALLS     to be made, and MEMBERS of the team: chosen when it runs
    FIRST_STEP, LAST_STEP  of the steps over time that are to be done now, counted as they are done
    ARRIVALS  of its members at their barrier, on a cache line of its own
    ARGUMENTS and from here on
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import kernel, native_address
from fastrnn_kernels.cpu.isa.host import current, suffix
from fastrnn_kernels.cpu.isa.instruction_set import InstructionSet
from fastrnn_kernels.cpu.isa.llvm import data_of

ENTRY, COUNT, TEAM, CALLS, MEMBERS, FIRST_STEP, LAST_STEP, ARRIVALS, ARGUMENTS = (
    0, 1, 2, 3, 4, 5, 6, 16, 32,
)  # fmt: skip
#: A last step that is beyond every one.
ALL_STEPS = 1 << 62
#: Words of a record: room for sixty arrays.
WORDS = 512

Record = NDArray[np.int64]
_INDEX = ir.IntType(64)
#: Of the functions that calls are made of: a record, a number, members.
SIGNATURE = (types.CPointer(types.int64), types.int64, types.int64)


@dataclass(slots=True, eq=False)  # frozen ones take longer to make
class Job:
    """A packed job, and the arrays that its record points into.

    steps: over time, where it may be done in parts, one after the other; else 0.
    """

    record: Record
    arguments: tuple[Any, ...]
    steps: int = 0

    @property
    def largest(self) -> int:
        """The most threads that can take part."""
        return int(self.record[COUNT])

    @property
    def used(self) -> int:
        """Words of the record that it reads, at most: an array's, or one of a number."""
        each = (5 + 2 * a.ndim if isinstance(a, np.ndarray) else 1 for a in self.arguments)
        return ARGUMENTS + sum(each)


def _borrowed(context: Any, builder: Any, kind: types.Type, value: Any) -> Any:
    """An argument without its reference, which ends with the call that packs it."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value=value)
    array.meminfo = ir.Constant(array.meminfo.type, None)
    array.parent = ir.Constant(array.parent.type, None)
    return array._getvalue()


def _struct(context: Any, kinds: tuple[types.Type, ...]) -> tuple[list[Any], Any]:
    """How arguments lie in a record: their models, and LLVM's type of them all."""
    models = [context.data_model_manager[kind] for kind in kinds]
    return models, ir.LiteralStructType([model.get_data_type() for model in models])


def _tag(kinds: tuple[types.Type, ...]) -> int:
    """A number that stands for the types of a job's arguments."""
    return int(hashlib.sha256(repr(kinds).encode()).hexdigest()[:15], 16)


@intrinsic
def _pack(typingctx, record, arguments):  # type: ignore[no-untyped-def]
    """Store the arguments in the record; the tag of their types."""
    kinds = tuple(arguments)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        models, struct = _struct(context, kinds)
        if context.get_abi_sizeof(struct) > 8 * (WORDS - ARGUMENTS):
            raise ValueError(f"{len(kinds)} arguments do not fit the record of a job")
        words = data_of(context, builder, signature.args[0], args[0])
        stored = builder.bitcast(builder.gep(words, [_INDEX(ARGUMENTS)]), struct.as_pointer())
        for k, (kind, model) in enumerate(zip(kinds, models, strict=True)):
            value = builder.extract_value(args[1], k)
            value = model.as_data(builder, _borrowed(context, builder, kind, value))
            builder.store(value, cgutils.gep_inbounds(builder, stored, 0, k))
        return _INDEX(_tag(kinds))

    return types.int64(record, arguments), codegen


@kernel("job-fill")
def _fill(record, count, team, *arguments):  # type: ignore[no-untyped-def]
    record[COUNT] = count
    record[TEAM] = team
    record[FIRST_STEP], record[LAST_STEP] = 0, ALL_STEPS
    return _pack(record, arguments)


def _unpacker(kinds: tuple[types.Type, ...], fields: type[Any] | None) -> Any:
    """A function `(record)` that gives the arguments of these types that lie in the record.

    fields: the class of the named tuple that they make, or None for a plain one.
    """

    @intrinsic
    def unpack(typingctx, record):  # type: ignore[no-untyped-def]
        result = types.Tuple(kinds) if fields is None else types.NamedTuple(kinds, fields)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            models, struct = _struct(context, kinds)
            at = builder.gep(args[0], [_INDEX(ARGUMENTS)])
            stored = builder.bitcast(at, struct.as_pointer())
            values = [
                model.load_from_data_pointer(builder, cgutils.gep_inbounds(builder, stored, 0, k))
                for k, model in enumerate(models)
            ]
            return context.make_tuple(builder, signature.return_type, values)

        return result(record), codegen

    return unpack


def job(
    name: str, words: str = "a job of threads", fields: type[Any] | None = None
) -> Callable[[Callable[[Any], Any]], Callable[..., Job]]:
    """Make a job, `(count, team, *arguments) -> Job`, of `make(arguments)`.

    `make` gives the function `(record, number, members)` that calls are made of: it takes its
    arguments by `arguments(record)`; its number is below `count` or among the members, and
    `members` is 1 for what is no team. It must not raise. It is compiled once per machine,
    for each combination of the arguments' types.

    words: what it is, while it is compiled (`cache/announce.py`).
    fields: a class of named tuples, for a job of many arguments. Who prepares it makes one of them,
    and the job takes them as one: so their order stands in one place.
    """

    def decorate(make: Callable[[Any], Any]) -> Callable[..., Job]:
        entries: dict[tuple[int, InstructionSet], int] = {}
        kept: list[Any] = []  # compiled code lives as long as what compiled it

        def entry(arguments: tuple[Any, ...]) -> int:
            kinds = tuple(numba.typeof(value) for value in arguments)
            whole_name = f"{name}-{_tag(kinds):x}{suffix()}"
            run = kernel(whole_name, words)(make(_unpacker(kinds, fields)))
            kept.append(run)
            found = entries[_tag(kinds), current()] = native_address(run, SIGNATURE)
            return found

        def prepare(count: int, team: bool, *arguments: Any) -> Job:
            # Zeros: beside a flag of a byte stands what was there before, which a recipe may take
            # for one of its places.
            record = np.zeros(WORDS, np.int64)
            tag = _fill(record, count, team, *arguments)
            record[ENTRY] = entries.get((tag, current())) or entry(arguments)
            return Job(record, arguments)

        prepare.compiled = kept  # type: ignore[attr-defined]
        return prepare

    return decorate


@intrinsic
def call(typingctx, record, number, members):  # type: ignore[no-untyped-def]
    """Make one call of the job whose record lies at an address."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        record, number, members = args
        words = builder.inttoptr(record, _INDEX.as_pointer())
        entry = builder.load(builder.gep(words, [_INDEX(ENTRY)]))
        convention = context.call_conv
        kind = convention.get_function_type(types.void, SIGNATURE)
        function = builder.inttoptr(entry, kind.as_pointer())
        # Jobs raise nothing, so the status says nothing.
        values = [words, number, members]
        convention.call_function(builder, function, types.void, SIGNATURE, values)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
