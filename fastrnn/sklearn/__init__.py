"""scikit-learn's estimators on fastrnn's kernels: sequences in, labels, values or forecasts out.

    from fastrnn.sklearn import RNNClassifier

    classifier = RNNClassifier("gru", hidden_sizes=(64,)).fit(sequences, labels)

They go into pipelines, cross-validation and grid searches, are cloned and pickled, and train with
`fastrnn.train` alone. What was fitted is `model_`, a `fastrnn.Sequential`.
"""

try:
    import sklearn as _sklearn  # noqa: F401  (that it is there)
except ImportError as error:
    raise ImportError(
        "fastrnn.sklearn wants scikit-learn: pip install 'scikit-learn>=1.6'"
    ) from error

from fastrnn.sklearn.classifier import RNNClassifier
from fastrnn.sklearn.forecaster import RNNForecaster
from fastrnn.sklearn.regressor import RNNRegressor

__all__ = ["RNNClassifier", "RNNForecaster", "RNNRegressor"]


def __dir__() -> list[str]:
    return sorted(__all__)
