"""Real weights, real words: a trained grapheme-to-phoneme model decodes 93 words."""

import json

import numpy as np
import pytest

import fastrnn

END_OF_LETTERS = 2  # "</s>" among the graphemes
START, END = 2, 3  # "<s>" and "</s>" among the phonemes
LONGEST = 20


@pytest.fixture(scope="module")
def golden(data):
    """The words, their phonemes and the encoder's final states, from a float64 run."""
    folder = data / "g2p"
    if not folder.is_dir():
        pytest.skip("the grapheme-to-phoneme model (../shared/data/g2p) is not here")
    content = json.loads((folder / "golden.json").read_text())
    with np.load(folder / "checkpoint20.npz") as stored:
        weights = dict(stored)
    states = np.load(folder / "encoder_final_state_float64.npy")
    return content, weights, states


def load(layer, weights, prefix, suffix=""):
    """Copies one GRU of the checkpoint, whose gates stand in the order of torch."""
    short = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    layer.load_state_dict({n + suffix: weights[f"{prefix}_{s}"] for n, s in short.items()})


def encode(content, weights):
    """The encoder's final state of every word, all words in one ragged batch."""
    index = {letter: k for k, letter in enumerate(content["graphemes"])}
    words = [[*(index[c] for c in w["word"]), END_OF_LETTERS] for w in content["words"]]
    lengths = np.array([len(word) for word in words])
    letters = np.zeros((lengths.max(), len(words)), int)
    for b, word in enumerate(words):
        letters[: len(word), b] = word
    encoder = fastrnn.GRU(256, 256)
    load(encoder, weights, "enc", "_l0")
    _, h = encoder(weights["enc_emb"][letters], lengths=lengths)
    return h[0]


def decode(content, weights, h):
    """Greedy: the likeliest phoneme at each step, until the end or LONGEST steps."""
    decoder = fastrnn.GRUCell(256, 256)
    load(decoder, weights, "dec")
    phoneme = np.full(len(h), START)
    spoken = [[] for _ in h]
    done = np.zeros(len(h), bool)
    for _ in range(LONGEST):
        h = decoder(weights["dec_emb"][phoneme], h)
        phoneme = np.argmax(h @ weights["fc_w"].T + weights["fc_b"], axis=1)
        done |= phoneme == END
        for b in np.flatnonzero(~done):
            spoken[b].append(content["phonemes"][phoneme[b]])
    return spoken


def test_encoder_states(golden):
    content, weights, states = golden
    h = encode(content, weights)
    # float32 against float64: up to 30 steps, sums of 512 products, states below 1.
    np.testing.assert_allclose(h, states, rtol=0, atol=1e-5)


def test_phonemes(golden):
    content, weights, _ = golden
    spoken = decode(content, weights, encode(content, weights))
    assert len(spoken) == 93
    for word, phonemes in zip(content["words"], spoken, strict=True):
        assert phonemes == word["phonemes"], word["word"]


def test_words_as_streams(golden):
    """Letter by letter, and phoneme by phoneme from where the letters left the state."""
    content, weights, _ = golden
    h = encode(content, weights)
    index = {letter: k for k, letter in enumerate(content["graphemes"])}
    encoder = fastrnn.GRUCell(256, 256)
    load(encoder, weights, "enc")
    decoder = fastrnn.GRUCell(256, 256)
    load(decoder, weights, "dec")
    reading, speaking = encoder.stream(), decoder.stream()
    scores = fastrnn.Linear(256, len(content["phonemes"]))
    scores.load_state_dict({"weight": weights["fc_w"], "bias": weights["fc_b"]})
    for b in (0, 41, 92):
        reading.reset()
        for letter in [*content["words"][b]["word"]]:
            reading.step(weights["enc_emb"][index[letter]])
        final = reading.step(weights["enc_emb"][END_OF_LETTERS])
        assert np.array_equal(final, h[b])
        speaking.state, phoneme, spoken = final[None], START, []
        while phoneme != END and len(spoken) < LONGEST:
            y = speaking.step(weights["dec_emb"][phoneme])
            phoneme = int(np.argmax(scores(y)))
            spoken.append(content["phonemes"][phoneme])
        assert spoken[:-1] == content["words"][b]["phonemes"]


def test_a_word_alone_gives_the_bits_of_the_batch(golden):
    """The decoder's steps, unbatched, from the state of one word."""
    content, weights, _ = golden
    h = encode(content, weights)
    index = {letter: k for k, letter in enumerate(content["graphemes"])}
    encoder = fastrnn.GRU(256, 256)
    load(encoder, weights, "enc", "_l0")
    for b in (0, 41, 92):
        word = [index[c] for c in content["words"][b]["word"]]
        _, alone = encoder(weights["enc_emb"][[*word, END_OF_LETTERS]])
        assert np.array_equal(alone[0], h[b])
