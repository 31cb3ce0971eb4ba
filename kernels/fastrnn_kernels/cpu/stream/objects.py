"""Streams as object files, which need neither Python nor Numba.

The function that a stream runs is compiled to LLVM's IR as ever; here it is joined with its
weights and with C's ways in, all else is made internal, and LLVM emits it for the target.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.stream.entry import DONE, NULL_POINTER
from fastrnn_kernels.cpu.stream.functions import SIGNATURE, WEIGHTS, Stage, function_of
from fastrnn_kernels.cpu.stream.program import LayerState, begin_from, new_memory

#: What C gets beside DONE and NULL_POINTER: memory that was never reset.
NOT_RESET = 2
#: Stands in the second word of a state from its first reset on.
_MAGIC = 0x6E6E727473616600

_TEMPLATE = """
{weights}
{start}

define i{size} @{name}_state_size() {{
  ret i{size} {bytes}
}}

define i32 @{name}_reset(ptr %state) {{
  %null = icmp eq ptr %state, null
  br i1 %null, label %refuse, label %accept
refuse:
  ret i32 {null_pointer}
accept:
  call void @llvm.memcpy.p0.p0.i{size}(ptr %state, ptr @{name}_start, i{size} {bytes}, i1 false)
  %second = getelementptr i64, ptr %state, i64 1
  store i64 {magic}, ptr %second, align 1
  ret i32 {done}
}}

declare void @llvm.memcpy.p0.p0.i{size}(ptr, ptr, i{size}, i1)

define i32 @{name}_step(ptr %state, ptr %x, ptr %y) {{
  %status = call i32 @{name}_block(ptr %state, ptr %x, ptr %y, i{size} 1)
  ret i32 %status
}}

define i32 @{name}_block(ptr %state, ptr %x, ptr %y, i{size} %steps) {{
  %no_state = icmp eq ptr %state, null
  %no_x = icmp eq ptr %x, null
  %no_y = icmp eq ptr %y, null
  %one = or i1 %no_x, %no_y
  %null = or i1 %one, %no_state
  br i1 %null, label %refuse, label %look
refuse:
  ret i32 {null_pointer}
look:
  %second = getelementptr i64, ptr %state, i64 1
  %magic = load i64, ptr %second, align 1
  %fresh = icmp ne i64 %magic, {magic}
  br i1 %fresh, label %decline, label %accept
decline:
  ret i32 {not_reset}
accept:
  %table = alloca [{words} x i64], align 8
{stores}
  %result = alloca ptr
  %error = alloca ptr
  %table_address = ptrtoint ptr %table to i64
  %state_address = ptrtoint ptr %state to i64
  br label %again
again:
  %done = phi i{size} [0, %accept], [%following, %run]
  %source = phi ptr [%x, %accept], [%next_source, %run]
  %target = phi ptr [%y, %accept], [%next_target, %run]
  %more = icmp ult i{size} %done, %steps
  br i1 %more, label %run, label %end
run:
  %source_address = ptrtoint ptr %source to i64
  %target_address = ptrtoint ptr %target to i64
  call i32 @"{step}"(ptr %result, ptr %error, i64 %table_address, i64 %state_address, i64 %source_address, i64 %target_address)
  %next_source = getelementptr i8, ptr %source, i64 {source_bytes}
  %next_target = getelementptr i8, ptr %target, i64 {target_bytes}
  %following = add i{size} %done, 1
  br label %again
end:
  ret i32 {done}
}}
"""  # noqa: E501


class Target(NamedTuple):
    """What an object file is for: LLVM's triple and names of the processor and its features."""

    triple: str
    cpu: str
    features: str

    @property
    def address_bits(self) -> int:
        """Bits of an address, and of C's size_t."""
        return 32 if self.triple.startswith("wasm32") else 64


def _constant(name: str, array: Array) -> str:
    data = "".join(f"\\{byte:02x}" for byte in array.tobytes())
    value = f'c"{data}"' if array.any() else "zeroinitializer"
    return f"@{name} = internal constant [{array.nbytes} x i8] {value}, align 64"


def _compiled(function: Any) -> Any:
    """A function compiled to IR alone: nothing of it is for this process."""
    flags = Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    target, typing = cpu_target.target_context, cpu_target.typing_context
    with global_compiler_lock:
        result = compile_extra(typing, target, function, SIGNATURE, None, flags, {})
        result.library.finalize()
    return result


def emit(
    stages: Sequence[tuple[Stage, tuple[Array, ...]]],
    starts: Sequence[LayerState],
    name: str,
    target: Target,
) -> tuple[bytes, int]:
    """The object file of a stream of these stages, and the bytes of its state.

    starts: what its states are after a reset.
    Its functions are named `name`_state_size, _reset, _step and _block. The stages have to
    be made and packed for the target's instruction set, which is the one at hand (`isa/host.py`).
    """
    alone = [stage for stage, _ in stages]
    arrays = [array for _, weights in stages for array in weights]
    result = _compiled(function_of(alone, False))
    item = np.dtype(alone[0].dtype).itemsize
    size = target.address_bits
    start = new_memory(alone)
    begin_from(alone, start, starts)
    state_bytes = start.nbytes
    stores = []
    for k in range(len(arrays)):
        stores.append(f"  %w{k} = getelementptr i64, ptr %table, i64 {WEIGHTS + k}")
        stores.append(f"  store i64 ptrtoint (ptr @{name}_w{k} to i64), ptr %w{k}, align 8")
    text = _TEMPLATE.format(
        weights="\n".join(_constant(f"{name}_w{k}", array) for k, array in enumerate(arrays)),
        start=_constant(f"{name}_start", start),
        name=name, size=size, bytes=state_bytes, magic=_MAGIC, words=WEIGHTS + len(arrays),
        stores="\n".join(stores), step=result.fndesc.llvm_func_name,
        source_bytes=item * alone[0].B * alone[0].I,
        target_bytes=item * alone[0].B * alone[-1].out_size,
        done=DONE, null_pointer=NULL_POINTER, not_reset=NOT_RESET,
    )  # fmt: skip
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )
    lines = str(result.library.get_llvm_str()).splitlines()
    kept = [line for line in lines if not line.startswith(("target triple", "target datalayout"))]
    module = llvm.parse_assembly("\n".join(kept) + text)
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    ways_in = {f"{name}_{what}" for what in ("state_size", "reset", "step", "block")}
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in ways_in:
            value.linkage = llvm.Linkage.internal
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.PipelineTuningOptions(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module), state_bytes
