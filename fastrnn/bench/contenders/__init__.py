"""Who is measured: fastrnn itself, and its peers."""

from fastrnn.bench.cases import CELLS, SCANNED, WRITTEN
from fastrnn.bench.contender import Contender
from fastrnn_kernels.cells import registry

OWN = Contender("fastrnn", "fastrnn.bench.contenders.fastrnn", own=True)
#: The same steps from a compiled function, as `fastrnn.jit` has them.
COMPILED = Contender(
    "fastrnn.jit", "fastrnn.bench.contenders.compiled", own=True, stepwise=True, passes=("forward",)
)
#: What cells that are written like built-in ones are measured beside, in place of peers.
BUILT_IN = Contender(
    "built-in", "fastrnn.bench.contenders.built_in", own=True, cells=tuple(WRITTEN)
)

PEERS = {
    peer.name: peer
    for peer in (
        Contender(
            "torch",
            "fastrnn.bench.contenders.torch",
            ("torch",),
            low=("bfloat16",),
            without=tuple(WRITTEN),
        ),
        Contender(
            "torch.compile",
            "fastrnn.bench.contenders.torch_compile",
            ("torch",),
            low=("bfloat16",),
            ragged=False,
            without=(*WRITTEN, *(name for name, entry in registry.CELLS.items() if entry.torch)),
            limit=120.0,
        ),
        Contender(
            "torch scan",
            "fastrnn.bench.contenders.torch_scan",
            ("torch",),
            ragged=False,
            cells=SCANNED,
        ),
        Contender(
            "torch log-scan",
            "fastrnn.bench.contenders.torch_log_scan",
            ("torch",),
            ragged=False,
            cells=("MinGRULog",),
        ),
        Contender(
            "onnxruntime",
            "fastrnn.bench.contenders.onnxruntime",
            ("onnxruntime", "onnx"),
            passes=("forward",),
            dtypes=("float32",),  # its recurrent operators have no float64 kernels
            cells=CELLS,
        ),
        Contender(
            "openvino",
            "fastrnn.bench.contenders.openvino",
            ("openvino", "onnxruntime", "onnx"),
            passes=("forward",),
            dtypes=("float32", "bfloat16"),
            low=("bfloat16",),
            ragged=False,
            cells=CELLS,
        ),
        Contender("numpy", "fastrnn.bench.contenders.numpy", without=tuple(WRITTEN)),
    )
}


def peer(text: str) -> Contender:
    """A peer by its name, or `name=module` for an implementation of one's own.

    Raises:
        ValueError: for a name that is neither.
    """
    name, separator, module = text.partition("=")
    if separator and name and module:
        return Contender(name, module, (module.partition(".")[0],))
    if name not in PEERS:
        raise ValueError(
            f"unknown peer {text!r}; there are {', '.join(PEERS)}, or name=module for your own"
        )
    return PEERS[name]
