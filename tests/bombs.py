"""Small files that ask for gigabytes or minutes, of every kind known; read as a process of its own.

    python tests/bombs.py FOLDER

Prints, for each, what was raised, by how many bytes the process grew at most, and how many seconds
of a processor reading took.
"""

import bz2
import json
import lzma
import struct
import sys
import zlib
from pathlib import Path
from time import process_time

import numpy as np

import fastrnn
from fastrnn import weights
from fuzz import resident

#: What most of these would grow to, in bytes.
LARGE = 256 << 20
CHUNK = bytes(1 << 20)
#: The configuration of a Keras model without layers.
EMPTY = b'{"class_name": "Sequential", "config": {"layers": []}}'


def squeezed(make, size=LARGE):
    """So many zeros, compressed."""
    return b"".join(make.compress(CHUNK) for _ in range(size // len(CHUNK))) + make.flush()


def archive(path, files):
    """A zip archive; of each file its bytes, its method, its size and its checksum as they say."""
    made, directory = b"", b""
    for name, (data, method, size) in files.items():
        head = (0, method, 0, 0, zlib.crc32(data) if not method else 0, len(data), size, len(name))
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, *head, *[0] * 5,
                                 len(made)) + name.encode()  # fmt: skip
        made += struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, *head, 0) + name.encode() + data
    end = (0, 0, len(files), len(files), len(directory), len(made), 0)
    path.write_bytes(made + directory + struct.pack("<4sHHHHIIH", b"PK\x05\x06", *end))


def plain(data):
    return data, 0, len(data)


def pickled(code):
    return lambda path: path.write_bytes(b"\x80\x04" + code + b".")


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def tensors(entries, rows, columns):
    """A pickle of a state dict whose tensors are all of one storage."""
    rows, columns, numel = (b"J" + n.to_bytes(4, "little") for n in (rows, columns, rows * columns))
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numel + b"tQK\x00"
    tensor += rows + columns + b"\x86" + columns + b"K\x01\x86\x89}tR"
    return b"\x80\x02}(" + b"".join(text(name) + tensor for name in entries) + b"u."


def deflated_storage(path):
    raw = squeezed(zlib.compressobj(9, zlib.DEFLATED, -15))
    content = tensors(["weight_ih_l0", "weight_hh_l0"], 4096, LARGE // 4 // 4096)
    archive(path, {"a/data.pkl": plain(content), "a/data/0": (raw, 8, LARGE)})


def storage_that_goes_on(path):
    """The archive says four bytes, the stream does not end there."""
    raw = squeezed(zlib.compressobj(9, zlib.DEFLATED, -15))
    content = tensors(["weight_ih_l0", "weight_hh_l0"], 1, 1)
    archive(path, {"a/data.pkl": plain(content), "a/data/0": (raw, 8, 4)})


def one_storage_often(path):
    names = [f"l{k}.weight_{part}_l0" for k in range(1000) for part in ("ih", "hh")]
    content = tensors(names, 1024, 256)
    archive(path, {"a/data.pkl": plain(content), "a/data/0": plain(bytes(1 << 20))})


def one_dictionary_often(path):
    """Of which each holds the one before fifty times, so that there are 50**12 ways through."""
    code = b"}q\x00"
    for _ in range(12):
        code += b"}(" + b"".join(text(str(k)) + b"h\x00" for k in range(50)) + b"uq\x00"
    pickled(code)(path)


def long_path(path):
    """Of a dictionary with many names."""
    names = [text("weight_ih_l0"), *(text(str(k)) for k in range(60_000))]
    entries = b"".join(name + b"K\x01" for name in names)
    pickled(b"}" + text("x" * 500_000) + b"}(" + entries + b"us")(path)


def member(name, method):
    def write(path):
        if method == 12:
            raw = squeezed(bz2.BZ2Compressor())
        else:
            options = [{"id": lzma.FILTER_LZMA1, "preset": 0}]
            properties = b"\x5d" + (1 << 18).to_bytes(4, "little")
            raw = b"\x09\x04\x05\x00" + properties
            raw += squeezed(lzma.LZMACompressor(lzma.FORMAT_RAW, filters=options))
        archive(path, {"config.json": plain(EMPTY), name: (raw, method, 100)})

    return write


def large_directory(path):
    archive(path, {"a": plain(b"")})
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    entry = data[at : at + 47]
    many = 400_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0, 0, len(entry) * many, at, 0)
    path.write_bytes(data[:at] + entry * many + end)


def config(content):
    return lambda path: archive(
        path, {"config.json": plain(content), "model.weights.h5": plain(b"")}
    )


def hdf5(write):
    def make(path):
        import h5py

        with h5py.File(path, "w") as file:
            write(h5py, file, file.create_group("layers/lstm/cell/vars"))

    return make


def two_filters(h5py, file, group):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    side = 2**13  # 256 MiB of float32
    plist.set_chunk((side, side))
    for _ in range(2):
        plist.set_deflate(9)
    space = h5py.h5s.create_simple((4, 4), (h5py.h5s.UNLIMITED, h5py.h5s.UNLIMITED))
    found = h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, plist)
    found.write_direct_chunk((0, 0), zlib.compress(squeezed(zlib.compressobj(9)), 9))


def filter_that_goes_on(h5py, file, group):
    """A chunk of 64 bytes, whose stream does not end there."""
    found = group.create_dataset("0", (4, 4), "f4", chunks=(4, 4), compression="gzip")
    found.id.write_direct_chunk((0, 0), squeezed(zlib.compressobj(9)))


def wide_chunk(h5py, file, group):
    group.create_dataset("0", (4, 4), "f4", chunks=(2**13, 2**13), maxshape=(None, None))


def never_written(h5py, file, group):
    group.create_dataset("0", (2**28,), "f4")


def one_array_often(h5py, file, group):
    group["0"] = np.zeros((4, 1 << 18), "f4")
    for k in range(1, 200):
        group[str(k)] = group["0"]


def onnx_lstms(path):
    """A model of a megabyte whose nodes all have the same weights."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = {"W": np.zeros((1, 1024, 1), "f"), "R": np.zeros((1, 1024, 256), "f")}
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], [f"y{k}"], hidden_size=256) for k in range(500)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y0")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def onnx_states(path):
    """Nodes one behind the other, whose states are all joined of the same twenty thousand."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = {"W": np.zeros((1, 1, 1), "f"), "R": np.zeros((1, 1, 1), "f"), "one": np.array([1])}
    parts = [f"{k}" for k in range(20_000)]
    nodes = [helper.make_node("Concat", parts, ["h"], axis=0)]
    before = "x"
    for k in range(1000):
        nodes.append(helper.make_node("RNN", [before, "W", "R", "", "", "h"], [f"Y{k}"],
                                      hidden_size=1))  # fmt: skip
        nodes.append(helper.make_node("Squeeze", [f"Y{k}", "one"], [f"y{k}"]))
        before = f"y{k}"
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ["x", *parts]]
    graph = helper.make_graph(nodes, "g", floats, [floats[0]], constants)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def inside_of_a_long_name(path):
    """A node of a long name, with many LSTMs in its branch, whose paths each have that."""
    from onnx import helper

    nodes = [helper.make_node("LSTM", ["x", "w", "r"], [f"y{k}"]) for k in range(10_000)]
    branch = helper.make_graph(nodes, "b", [], [])
    node = helper.make_node("If", ["c"], ["y"], name="n" * 500_000, then_branch=branch)
    graph = helper.make_graph([node], "g", [], [])
    path.write_bytes(helper.make_model(graph).SerializeToString())


def doubled(path):
    """Weights of four bytes behind 40 nodes that put two of what they get together."""
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("Concat", [f"w{k}"] * 2, [f"w{k + 1}"], axis=0) for k in range(40)]
    nodes.append(helper.make_node("LSTM", ["x", "w40", "w40"], ["y"]))
    constants = [numpy_helper.from_array(np.zeros((1, 1, 1), "f"), "w0")]
    graph = helper.make_graph(nodes, "g", [], [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())


def field(number, data):
    """A field of a Protocol Buffers message."""
    size, found = len(data), b""
    while size > 127:
        found += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + found + bytes([size]) + data


def onnx_graph(content):
    return lambda path: path.write_bytes(field(7, content))


def header(content):
    return lambda path: path.write_bytes(len(content).to_bytes(8, "little") + content)


def metadata(path):
    entries = ",".join(f'"{k}":""' for k in range(300_000))
    header(f'{{"__metadata__":{{{entries}}}}}'.encode())(path)


def halves(path):
    """Twenty thousand values of bfloat16, each a tensor of its own."""
    entries = ",".join(
        f'"{k}":{{"dtype":"BF16","shape":[1],"data_offsets":[{2 * k},{2 * k + 2}]}}'
        for k in range(20_000)
    )
    header(f"{{{entries}}}".encode())(path)
    path.write_bytes(path.read_bytes() + bytes(40_000))


def lists(many):
    return b"[" + b"[]," * many + b"[]]"


def texts(path):
    """As an array, each as long as the longest."""
    found = {"weight_ih_l0": ["a" * 100_000, *[""] * 100_000], "weight_hh_l0": [1.0]}
    path.write_bytes(json.dumps(found).encode())


#: Files by name, and a part of what has to be said of them.
BOMBS = {
    "bytearray.pt": (pickled(b"cbuiltins\nbytearray\n\x8a\x05\x00^\xd0\xb2\x00\x85R"), "bytearray"),
    "memo.pt": (pickled(b"Nr\xff\xff\xff\x7f"), "NoneType"),
    "empty-lists.pt": (pickled(b"(" + b"]" * 2_000_000 + b"l"), "its pickle would have"),
    "empty-dictionaries.pt": (
        pickled(b"(" + b"}" * 2_000_000 + b"l"), "its pickle would have",
    ),
    "kept.pt": (pickled(b"N" + b"\x94" * 2_000_000), "its pickle would have"),
    "long-text.pt": (pickled(b"\x8d" + (1 << 40).to_bytes(8, "little")), "its pickle is cut short"),
    "tuples-as-key.pt": (pickled(b"})" + b"2\x86" * 100 + b"Ns"), "no names"),
    "tuples-as-value.pt": (
        pickled(b"}" + text("weight_ih_l0") + b")" + b"2\x86" * 100 + b"s"), "weight_ih_l0 is a",
    ),
    "itself.pt": (pickled(b"}q\x00" + text("state_dict") + b"h\x00s"), "state_dict"),
    "deflated-storage.pt": (deflated_storage, "weight_ih_l0 has shape"),
    "storage-goes-on.pt": (storage_that_goes_on, "data/0 is damaged"),
    "one-storage-often.pt": (one_storage_often, "would have"),
    "dictionaries.pt": (one_dictionary_often, "more dictionaries inside of each other"),
    "long-path.pt": (long_path, "more dictionaries inside of each other"),
    "bzip2.keras": (member("model.weights.h5", 12), "compressed by bzip2"),
    "lzma.keras": (member("model.weights.h5", 14), "compressed by LZMA"),
    "bzip2.npz": (member("config.json", 12), "compressed by bzip2"),
    "lzma.npz": (member("config.json", 14), "compressed by LZMA"),
    "directory.npz": (large_directory, "its directory would have"),
    "lists.keras": (config(lists(2_000_000)), "config.json would have"),
    "two-filters.weights.h5": (hdf5(two_filters), "/0 is compressed"),
    "filter-goes-on.weights.h5": (hdf5(filter_that_goes_on), "/0 is compressed"),
    "wide-chunk.weights.h5": (hdf5(wide_chunk), "a chunk of .*/0 would have"),
    "never-written.weights.h5": (hdf5(never_written), "/0 would have"),
    "one-array-often.weights.h5": (hdf5(one_array_often), "would have"),
    "empty-nodes.onnx": (onnx_graph(b"\x0a\x00" * 10**6), "the model would have"),
    "packed-numbers.onnx": (
        onnx_graph(field(5, field(7, bytes(20_000_000)))), "the model would have",
    ),
    "one-array-often.onnx": (onnx_lstms, "would have"),
    "states.onnx": (onnx_states, "it takes longer to read"),
    "long-name.onnx": (inside_of_a_long_name, "its names would have"),
    "doubled.onnx": (doubled, "of more than the file has"),
    "metadata.safetensors": (metadata, "its header would have"),
    "halves.safetensors": (halves, "holds no model of fastrnn"),
    "lists.safetensors": (header(b'{"a":' + lists(1_000_000) + b"}"), "its header would have"),
    "lists.json": (lambda path: path.write_bytes(lists(2_000_000)), "it would have"),
    "texts.json": (texts, "weight_ih_l0 is no array of numbers"),
}  # fmt: skip


def main(folder):
    folder = Path(folder)
    for suffix in (".safetensors", ".pt", ".keras", ".onnx", ".json", ".npz"):
        path = folder / f"good{suffix}"  # which imports what reading takes
        weights.save(fastrnn.LSTM(2, 3, seed=0), path)
        weights.load(path)
    found = {}
    for name, (write, _) in BOMBS.items():
        path = folder / name
        write(path)
        before, start = resident(), process_time()
        told = ""
        try:
            weights.load(path)
        except ValueError as error:
            told = str(error)
        seconds = process_time() - start
        found[name] = {
            "told": told, "growth": resident(peak=True) - before, "seconds": seconds,
            "size": path.stat().st_size,
        }  # fmt: skip
        path.unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
