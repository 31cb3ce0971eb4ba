"""Reviews from a small grammar in which the order of words decides: negation, and contrast.

"The plot was not bad at all" is praise. "I wanted to love it, but the ending is dull" is not,
though it has the words of praise; and of two clauses with "but" between them the second one counts,
with "although" before them, too.
"""

import numpy as np

PRAISE = [
    "good",
    "great",
    "wonderful",
    "brilliant",
    "charming",
    "moving",
    "funny",
    "gripping",
    "superb",
    "clever",
]
BLAME = [
    "bad",
    "awful",
    "dull",
    "boring",
    "clumsy",
    "shallow",
    "tedious",
    "dreadful",
    "weak",
    "silly",
]
THINGS = [
    "film",
    "story",
    "acting",
    "plot",
    "music",
    "ending",
    "script",
    "cast",
    "dialogue",
    "camera",
]
VERBS = ["is", "was", "seemed", "felt", "looked"]
MORE = ["very", "really", "truly", "quite", "so"]
#: What turns an adjective around.
NOT = ("not", "never", "hardly", "far from", "anything but", "not at all")
#: Openings that hope or fear; what follows decides.
HOPES = ("i wanted to love it", "i expected a good time", "everybody called it brilliant")
FEARS = ("i expected to hate it", "i feared the worst", "everybody called it boring")


def clause(rng: np.random.Generator, praise: bool) -> str:
    """A thing and what is said of it."""
    pick = rng.choice
    words = ["the", pick(THINGS), pick(VERBS)]
    if rng.random() < 0.4:
        words += [pick(NOT), pick(BLAME if praise else PRAISE)]
    else:
        words += ([pick(MORE)] if rng.random() < 0.5 else []) + [pick(PRAISE if praise else BLAME)]
    return " ".join(words)


def review(rng: np.random.Generator, praise: bool) -> str:
    """A review of one to three sentences, the last of which decides together with the others."""
    kind = rng.integers(6)
    own, other = clause(rng, praise), clause(rng, not praise)
    if kind == 0:
        return own
    if kind == 1:
        return f"{rng.choice(HOPES if not praise else FEARS)} , but {own}"
    if kind == 2:
        return f"{other} , but {own}"
    if kind == 3:
        return f"although {other} , {own}"
    if kind == 4:
        return f"{own} , even if {other}"
    return f"{own} , and {clause(rng, praise)}"


def reviews(many: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Reviews, and whether each is praise: 1, or blame: 0."""
    rng = np.random.default_rng(seed)
    praise = rng.integers(0, 2, many)
    return [review(rng, bool(one)) for one in praise], praise


def vocabulary(texts: list[str]) -> dict[str, int]:
    """A number for each word, from 1; 0 is for words that were not seen."""
    words = sorted({word for text in texts for word in text.split()})
    return {word: k for k, word in enumerate(words, 1)}


def tokens(texts: list[str], numbers: dict[str, int]) -> list[np.ndarray]:
    """Texts as arrays of numbers."""
    return [np.array([numbers.get(word, 0) for word in text.split()]) for text in texts]
