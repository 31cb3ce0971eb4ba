"""fastrnn's CUDA kernels on a GPU: are they right, are they clean, how fast are they?

python -m bench.gpu --part tests --out DIR        values and gradients on every path
python -m bench.gpu --part sanitize --out DIR     a few of these under compute-sanitizer
python -m bench.gpu --part speed --out DIR        times beside cuDNN (through torch)

Each part ends within eight minutes and writes DIR/<part>.json. It takes numba, numba-cuda, CuPy,
NumPy and, for speed, torch; nothing has to be installed of fastrnn itself. With
NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 and --small, `tests` rehearses on Numba's simulator.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

#: Seconds after which a part begins nothing new.
LIMIT = 420
