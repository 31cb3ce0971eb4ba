"""The suites of `fastrnn bench` under pytest-benchmark, to compare one's own runs over time.

    pytest bench --suite sequence --benchmark-autosave
    pytest bench --suite sequence --benchmark-compare
    pytest bench --contender torch

Medians are shown beside those of the last committed run, in bench/results/.

To compare contenders with one another take `fastrnn bench`, which keeps them apart.
"""

import importlib
from itertools import cycle

import fastrnn
from fastrnn.bench.data import ROTATION, sample
from fastrnn.bench.parity import difference, truth


def test_case(benchmark, contender, case):
    module = importlib.import_module(contender.module)
    program = module.build(case, fastrnn.get_num_threads(), contender.device)
    inputs = [program.load(sample(case, index)) for index in range(ROTATION)]
    for index in (0, 1, 0):
        answer = program.read(program.run(inputs[index]))
        assert difference(answer, truth(case, index), contender.dtype(case)) is None

    turn = cycle(inputs)
    benchmark(lambda: program.run(next(turn)))
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["gflops"] = case.flops / benchmark.stats.stats.median / 1e9
