"""Recurrent operators for ONNX's reference evaluator, and layers from and to ONNX models.

evaluator = onnx.reference.ReferenceEvaluator(model, new_ops=fastrnn.onnx.OPS)
layers = fastrnn.onnx.load("model.onnx")     # by name of the node
fastrnn.onnx.save(layer, "layer.onnx")
"""

from fastrnn.onnx.ops import OPS
from fastrnn.onnx.read import load
from fastrnn.onnx.write import save

__all__ = ["OPS", "load", "save"]


def __dir__() -> list[str]:
    return sorted(__all__)
