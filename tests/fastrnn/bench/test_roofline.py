import pytest

from fastrnn.bench import roofline
from fastrnn.bench.cases import Case, Shape

PROBES = {"fma": 100e9, "L1": 8e9, "L2": 4e9, "L3": 2e9, "memory": 1e9}
CACHES = {"L1": 1000, "L2": 10_000, "L3": 100_000}


def case(shape, pass_="forward", dtype="float32", suite="sequence"):
    return Case(suite, "rnn", Shape(*shape), pass_, dtype)


def test_a_sequence_reads_its_recurrent_weights_and_a_step_all():
    assert roofline.step_bytes(case((9, 1, 3, 10))) == 10 * 10 * 4
    assert roofline.step_bytes(case((9, 1, 3, 10), dtype="float64")) == 10 * 10 * 8
    assert roofline.step_bytes(case((1, 1, 3, 10), suite="stream")) == 10 * 13 * 4


@pytest.mark.parametrize(
    ("size", "threads", "level"),
    [
        (1000, 1, "L1"),
        (1001, 1, "L2"),
        (2000, 2, "L1"),
        (20_000, 2, "L2"),
        (20_001, 2, "L3"),
        (100_000, 2, "L3"),
        (100_001, 2, "memory"),
    ],
)
def test_weights_are_read_from_the_level_that_holds_each_threads_slice(size, threads, level):
    assert roofline.bandwidth(size, PROBES, CACHES, threads) == PROBES[level]


def test_where_no_l3_was_measured_the_memory_is_next():
    without = {level: PROBES[level] for level in ("fma", "L1", "L2", "memory")}
    assert roofline.bandwidth(50_000, without, CACHES, 1) == PROBES["memory"]


def test_one_sequence_is_bound_by_the_weights_and_a_large_batch_by_the_arithmetic():
    single, batch = case((50, 1, 1, 10)), case((50, 640, 1, 10))
    assert roofline.seconds(single, PROBES, CACHES, 1) == pytest.approx(50 * 400 / 8e9)
    assert roofline.seconds(batch, PROBES, CACHES, 1) == batch.flops / 100e9


def test_training_reads_the_weights_twice():
    single, trained = case((50, 1, 1, 10)), case((50, 1, 1, 10), "train")
    limits = PROBES, CACHES, 1
    assert roofline.seconds(trained, *limits) == 2 * roofline.seconds(single, *limits)


def test_ragged_sequences_take_the_steps_of_the_longest():
    ragged = case((200, 2, 1, 10), suite="ragged")
    steps = max(ragged.lengths)
    assert steps < 200
    assert roofline.seconds(ragged, PROBES, CACHES, 1) == pytest.approx(steps * 400 / 8e9)
