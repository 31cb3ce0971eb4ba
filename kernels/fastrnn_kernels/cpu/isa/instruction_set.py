"""Instruction sets: what kernels have to know of a processor's vector unit, a row of data each.

                 vector     registers  multiply-add  bfloat16 pairs
    SSE2         16 bytes   16         two steps     taken apart
    AVX2         32         16         fused         taken apart
    AVX512       64         32         fused         taken apart
    AVX512_BF16  64         32         fused         vdpbf16ps
    AMX          64         32         fused         vdpbf16ps; tiles in sequences
    NEON         16         32         fused         taken apart
    SIMD128      16         16         two steps     taken apart      (WebAssembly)

A new one is a row here, and in `host.py` the feature that tells it. What it does by instructions
of its own stands where the others' are: the multiply-add of a register block in
`product/block.py`, powers of two in `bits.py`, a thread's mode in `denormals.py`.
"""

from dataclasses import dataclass, replace

#: Rows of the largest register block that any kernel uses.
MAX_ROWS = 6
#: Rows of a register of the matrix unit, which takes two of them at a time.
TILE_ROWS = 16


@dataclass(frozen=True, eq=False)  # one is itself: a key that costs nothing
class InstructionSet:
    """The vector unit that kernels are compiled for.

    name: of it in the names of kernels.
    vector_bytes: of a register, which holds `lanes` values of a type.
    registers: vector registers that a register block may fill.
    needs: LLVM's names of the features that a host must have to run it.
    fused: whether multiply and add are one instruction, rounded once.
    pairs: whether one instruction multiplies pairs of bfloat16 and adds both.
    tiles: whether one multiplies tiles of such pairs (`product/tiles.py`).
    scales: whether one instruction scales by powers of two.
    mode: whose control word a thread sets to take denormals for zeros, on its way in, and
        puts back on its way out: "x86", "arm", or "" where there is none.
    fetch_rows: whether rows that are read or written once in a while are asked for ahead.
    fetch_ahead: bytes ahead of their use that panels are asked for in loops bound by reading
        them; 0 where the hardware's own fetching does better.
    """

    name: str
    vector_bytes: int
    registers: int
    needs: frozenset[str]
    fused: bool
    pairs: bool = False
    tiles: bool = False
    scales: bool = False
    mode: str = "x86"
    fetch_rows: bool = False
    fetch_ahead: int = 0

    def lanes(self, itemsize: int) -> int:
        """Values of so many bytes in one register."""
        return self.vector_bytes // itemsize

    def rows(self, vectors: int, values: int = 1) -> int:
        """Rows of a register block of so many vectors of columns, of `values` to an element.

        Their accumulators fit the registers beside one vector of the panel and the rows' values.
        """
        if self.tiles and values == 2:
            return 2 * TILE_ROWS
        return max(1, min(MAX_ROWS, (self.registers - 1) // (vectors + 1)))

    def most_rows(self, values: int) -> int:
        """Rows of no register block are more, whatever its columns."""
        return max(MAX_ROWS, self.rows(1, values))

    def depth_multiple(self, compute: str) -> int:
        """What the products of a sum are rounded up to, in a type to compute in."""
        return 2 if compute == "bfloat16" else 1


_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"})
SSE2 = InstructionSet("sse2", 16, 16, frozenset({"sse2"}), fused=False)
AVX2 = InstructionSet("avx2", 32, 16, frozenset({"avx2", "fma"}), fused=True, fetch_rows=True)
AVX512 = InstructionSet("avx512", 64, 32, _AVX512, fused=True, scales=True)
AVX512_BF16 = InstructionSet(
    "avx512bf16", 64, 32, _AVX512 | {"avx512bf16"}, fused=True, pairs=True, scales=True
)
AMX = replace(
    AVX512_BF16,
    name="amx",
    needs=AVX512_BF16.needs | {"amx-tile", "amx-bf16"},
    tiles=True,
)
NEON = InstructionSet("neon", 16, 32, frozenset({"neon"}), fused=True, mode="arm")
SIMD128 = InstructionSet("simd128", 16, 16, frozenset(), fused=False, mode="")
#: All of them.
EVERY = (SSE2, AVX2, AVX512, AVX512_BF16, AMX, NEON, SIMD128)
