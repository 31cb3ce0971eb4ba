"""Tell praise from blame where the order of words decides, and look at how the network reads.

A GRU reads a review word by word; TF-IDF with logistic regression counts its words. Where a review
praises one thing and blames another, counting cannot tell which of the two decides.

    python examples/sentiment/main.py                # a few seconds
    python examples/sentiment/main.py --torch        # and the same training in PyTorch beside it
"""

import argparse
from time import perf_counter

import numpy as np
from reviews import reviews, tokens, vocabulary

import fastrnn
from fastrnn import train

EMBEDDED, HIDDEN = 32, 48


def network(words: int) -> fastrnn.Sequential:
    """Embedding, GRU, its last output, two logits."""
    return fastrnn.Sequential(
        fastrnn.Embedding(words, EMBEDDED, seed=0),
        fastrnn.GRU(EMBEDDED, HIDDEN, seed=1),
        fastrnn.Pool("last"),
        fastrnn.Linear(HIDDEN, 2, seed=2),
    )


def probabilities(model: fastrnn.Sequential, sequences: list[np.ndarray]) -> np.ndarray:
    """Of praise, for each review."""
    found = []
    for one in sequences:
        blame, praise = model(one[:, None])[0][0]
        found.append(1 / (1 + np.exp(blame - praise)))
    return np.array(found)


def counting(texts: list[str], praise: np.ndarray, unseen: list[str]) -> np.ndarray:
    """What TF-IDF with logistic regression says of unseen texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    baseline = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=10))
    return baseline.fit(texts, praise).predict(unseen)


def picture(model: fastrnn.Sequential, numbers: dict[str, int], path: str) -> None:
    """How sure the network is of praise after each word of three reviews."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = (
        "i wanted to love it , but the ending is dull",
        "the plot was not at all boring",
        "although the acting was awful , the story is brilliant",
    )
    figure, axes = pyplot.subplots(len(shown), 1, figsize=(8, 6), layout="constrained")
    for axis, text in zip(axes, shown, strict=True):
        words = text.split()
        sequence = tokens([text], numbers)[0]
        sure = probabilities(model, [sequence[: k + 1] for k in range(len(words))])
        axis.bar(range(len(words)), sure - 0.5, color=["C0" if p > 0.5 else "C3" for p in sure])
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(range(len(words)), words, rotation=30, ha="right")
        axis.set_yticks([-0.5, 0, 0.5], ["blame", "", "praise"])
        axis.set_ylim(-0.55, 0.55)
    figure.suptitle("What the network has made of a review after each word")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def in_torch(sequences: list[np.ndarray], praise: np.ndarray, words: int, epochs: int) -> float:
    """Seconds of the same training in PyTorch: same sizes, batches, optimiser."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_sequence

    torch.manual_seed(0)
    embedding, gru, head = (
        nn.Embedding(words, EMBEDDED),
        nn.GRU(EMBEDDED, HIDDEN),
        nn.Linear(HIDDEN, 2),
    )
    parameters = [*embedding.parameters(), *gru.parameters(), *head.parameters()]
    optimizer, rng = torch.optim.Adam(parameters, 5e-3), np.random.default_rng(0)
    begin = perf_counter()
    for _ in range(epochs):
        for some in np.array_split(rng.permutation(len(sequences)), -(-len(sequences) // 32)):
            batch = [embedding(torch.from_numpy(sequences[k])) for k in some]
            _, h = gru(pack_sequence(batch, enforce_sorted=False))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(h[0]), torch.from_numpy(praise[some]))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    return perf_counter() - begin


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--torch", action="store_true", help="train in PyTorch, too, for the time")
    parser.add_argument("--picture", help="draw what the network makes of reviews, word by word")
    given = parser.parse_args()

    texts, praise = reviews(given.reviews, 0)
    unseen, wanted = reviews(2000, 1)
    new = [k for k, text in enumerate(unseen) if text not in set(texts)]
    unseen, wanted = [unseen[k] for k in new], wanted[new]
    numbers = vocabulary(texts)
    sequences, others = tokens(texts, numbers), tokens(unseen, numbers)

    model = network(len(numbers) + 1)
    begin = perf_counter()
    history = train.fit(
        model, (sequences, praise), train.CrossEntropy(), train.Adam(5e-3), given.epochs,
        clip=1.0, rng=0,
    )  # fmt: skip
    seconds = perf_counter() - begin
    right = (probabilities(model, others) > 0.5) == wanted
    counted = counting(texts, praise, unseen) == wanted
    print(f"{len(unseen)} reviews that training has not seen")
    print(f"TF-IDF and logistic regression: {counted.mean():.1%} right")
    print(f"fastrnn's GRU: {right.mean():.1%} right, {history.epochs} epochs in {seconds:.1f} s")
    if given.torch:
        seconds = in_torch(sequences, praise, len(numbers) + 1, given.epochs)
        print(f"the same training in PyTorch: {seconds:.1f} s")
    if given.picture:
        picture(model, numbers, given.picture)


if __name__ == "__main__":
    main()
