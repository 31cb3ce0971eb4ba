"""A saved model over large sets of sequences, in bounded memory, to be taken up after a kill.

    from fastrnn.score import score

    score(fastrnn.load("model.safetensors"), "reviews.parquet", "scores.parquet")

`fastrnn score` is the same from the command line.
"""

from fastrnn.score.run import score

__all__ = ["score"]
