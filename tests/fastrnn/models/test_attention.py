"""Attention: a plain loop's values, gradients as differences have them, lengths, refusals."""

import numpy as np
import pytest

import fastrnn

RNG = np.random.default_rng(0)
QUERY, MEMORY = RNG.standard_normal((4, 3, 5)), RNG.standard_normal((6, 3, 5))
LENGTHS = np.array([6, 0, 2])


def loop(layer, query, memory, lengths):
    """Query by query, step by step."""
    p, context = layer.parameters, np.zeros((*query.shape[:2], memory.shape[-1]))
    for s, b in np.ndindex(query.shape[:2]):
        scores = []
        for t in range(lengths[b]):
            q, m = query[s, b], memory[t, b]
            if layer.score == "additive":
                inner = np.tanh(p["weight_query"] @ q + p["weight_memory"] @ m)
                scores.append(p["weight_score"] @ inner)
            else:
                scores.append(q @ (m if layer.score == "dot" else p["weight"] @ m))
        if scores:
            weights = np.exp(scores) / np.exp(scores).sum()
            context[s, b] = weights @ memory[: lengths[b], b]
    return context


@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_values_and_gradients(score):
    layer = fastrnn.Attention(5, 5, score, 4, dtype="float64", seed=0)
    memory = MEMORY.copy()
    memory[np.arange(6)[:, None] >= LENGTHS] = np.nan  # padding is not read
    context, tape = layer.forward(QUERY, memory, LENGTHS)
    np.testing.assert_allclose(context, loop(layer, QUERY, MEMORY, LENGTHS), rtol=1e-12)
    np.testing.assert_allclose(tape.weights.sum(-1), np.broadcast_to([1, 0, 1], (4, 3)))
    d = RNG.standard_normal(context.shape)
    found = layer.backward(tape, d)
    step, values = 1e-6, layer.state_dict()

    def slope(change):
        above, below = (change(sign * step) for sign in (1, -1))
        return (d * (above - below)).sum() / (2 * step)

    dq, dm = RNG.standard_normal(QUERY.shape), RNG.standard_normal(MEMORY.shape)
    wanted = slope(lambda s: loop(layer, QUERY + s * dq, MEMORY, LENGTHS))
    assert (found.query * dq).sum() == pytest.approx(wanted, rel=1e-6)
    wanted = slope(lambda s: loop(layer, QUERY, MEMORY + s * dm, LENGTHS))
    assert (found.memory * dm).sum() == pytest.approx(wanted, rel=1e-6)
    assert list(found.parameters) == list(values)
    for name, value in values.items():
        dp = RNG.standard_normal(value.shape)

        def changed(s, name=name, value=value, dp=dp):
            layer.update({name: value + s * dp})
            result = loop(layer, QUERY, MEMORY, LENGTHS)
            layer.update({name: value})
            return result

        assert (found.parameters[name] * dp).sum() == pytest.approx(slope(changed), rel=1e-6)


def test_large_scores_stay_finite():
    layer = fastrnn.Attention(2, 2, "dot")
    memory = np.array([[[1e4, 0.0]], [[0.0, 1e4]]], np.float32)
    context, tape = layer.forward(np.array([[[1e4, 0.0]]], np.float32), memory)
    assert np.array_equal(context[0, 0], [1e4, 0])
    assert np.isfinite(layer.backward(tape, context).memory).all()


def test_a_file(tmp_path):
    layer = fastrnn.Attention(5, 3, "additive", 7, seed=0)
    layer.save(tmp_path / "attention.safetensors")
    again = fastrnn.load(tmp_path / "attention.safetensors")
    assert repr(again) == repr(layer)
    query, memory = QUERY.astype("f"), MEMORY[..., :3].astype("f")
    assert np.array_equal(again(query, memory), layer(query, memory))


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: fastrnn.Attention(5, 3, "dot"), ValueError, "wanted the same for 'dot'"),
        (lambda: fastrnn.Attention(5, 3, "cosine"), ValueError, "score is 'cosine'"),
        (lambda: fastrnn.Attention(5, 5)(QUERY, MEMORY), TypeError, "query has dtype float64"),
        (
            lambda: fastrnn.Attention(4, 5, dtype="float64")(QUERY, MEMORY),
            ValueError,
            r"query has shape \(4, 3, 5\), wanted \(S, B, Q\) with Q=4",
        ),
        (
            lambda: fastrnn.Attention(5, 5, dtype="float64")(QUERY[:, :2], MEMORY),
            ValueError,
            "query is of 2 sequences, memory of 3",
        ),
        (
            lambda: fastrnn.Attention(5, 5, dtype="float64")(QUERY, MEMORY, [7, 1, 1]),
            ValueError,
            "lengths holds 7",
        ),
    ],
)
def test_bad_input(call, error, told):
    with pytest.raises(error, match=told):
        call()
