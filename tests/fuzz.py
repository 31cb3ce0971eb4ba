"""Mutated files of a format, read one after the other; run as a process of its own.

    python tests/fuzz.py FORMAT COUNT SECONDS FOLDER

Prints how many were read, how many were refused, how many seconds it took, and by how many bytes
the process grew at most. Ends with another exit code than 0 for any error but ValueError,
TypeError and OSError; a crash, a hang and memory without end show by themselves.
"""

import io
import json
import random
import sys
import time
import warnings
import zipfile
from pathlib import Path

import fastrnn
from fastrnn import weights

#: Of each format how the files are named that are mutated; Keras has two kinds.
FORMATS = {name: weights.suffixes_of(name)[0] for name in weights.FORMATS}
FORMATS["keras-weights"] = ".weights.h5"
#: Files between two looks at the memory.
BATCH = 200
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = [b"[", b"]", b"{", b"}", b"null", b"-1", b"1e999", b"true", b'"', b",", b"9" * 30, b"\x00"]


def seeds(name, folder):
    """Whole files of a format, as bytes."""
    suffix = FORMATS[name]
    models = [fastrnn.GRU(2, 3, seed=0), fastrnn.LSTM(3, 2, seed=1)]
    if name == "nam":
        models = [
            fastrnn.Sequential(
                fastrnn.LSTM(I, 2, L, initial_state="learned", seed=1), fastrnn.Linear(2, 1, seed=2)
            )
            for I, L in ((1, 1), (3, 2))
        ]
    elif name != "haste":
        linear = fastrnn.Linear(6, 1, activation="tanh", seed=2)
        lstm = fastrnn.LSTM(2, 3, bidirectional=name != "rtneural", seed=1)
        if name == "rtneural":
            linear = fastrnn.Linear(3, 1, activation="tanh", seed=2)
        models.append(fastrnn.Sequential(lstm, linear))
    found = []
    for k, model in enumerate(models):
        path = folder / f"seed{k}{suffix}"
        weights.save(model, path)
        found.append(path.read_bytes())
        weights.load(path)
    return found + [made.read_bytes() for made in foreign(name, models, folder)]


def foreign(name, models, folder):
    """Files of a format as other programs have them."""
    gru, path = models[0], folder / f"foreign{FORMATS[name]}"
    values = {f"rnn.{key}": value for key, value in gru.parameters.items()}
    if name == "fastrnn":
        import safetensors.numpy

        weights.save(gru, path, to="haste")
        yield path
        safetensors.numpy.save_file(values, path)
        yield path
    elif name == "torch":
        import torch

        tensors = {key: torch.from_numpy(value.copy()) for key, value in values.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        yield path
    elif name == "onnx":
        import onnx

        model = onnx.load(folder / "seed2.onnx")
        del model.metadata_props[:], model.graph.node[-6:]
        onnx.save(model, path)
        yield path
    elif name == "rtneural":
        path.write_text(json.dumps({key: value.tolist() for key, value in values.items()}))
        yield path


def mutated(draw, data, others):
    """Some bytes of a file changed, lost, doubled, or taken from another."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = draw.randrange(len(data))
        end = min(len(data), at + draw.choice((1, 2, 4, 8, 64)))
        kind = draw.randrange(8)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.randrange(256)
        elif kind == 2:
            size = draw.choice((1, 2, 4, 8))
            value = draw.choice(NUMBERS) & (256**size - 1)
            data[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))
        elif kind == 3:
            del data[at:end]
        elif kind == 4:
            data[at:at] = data[at:end]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            other = draw.choice(others)
            start = draw.randrange(len(other))
            data[at:end] = other[start : start + end - at]
        else:
            data[at:end] = draw.choice(WORDS)
    return bytes(data)


def inside(draw, data):
    """An archive with one of its files mutated, its checksums right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(target, "w") as made:
        names = archive.namelist()
        chosen = draw.choice(names)
        for name in names:
            content = archive.read(name)
            if name == chosen and content:
                content = mutated(draw, content, [content])
            made.writestr(name, content)
    return target.getvalue()


def resident(peak=False):
    """Bytes of memory, now or at most since it was last asked."""
    text = Path("/proc/self/status").read_text()
    word = "VmHWM:" if peak else "VmRSS:"
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(text.partition(word)[2].split()[0])


def main(name, count, seconds, folder):
    warnings.simplefilter("error")
    folder = Path(folder)
    files = seeds(name, folder)
    path = folder / f"mutated{FORMATS[name]}"
    read = refused = growth = number = 0
    start = time.perf_counter()
    before = resident()
    for number in range(count):
        draw = random.Random(number)
        data = draw.choice(files)
        if data[:2] == b"PK" and draw.random() < 0.7:
            data = inside(draw, data)
        else:
            data = mutated(draw, data, files)
        path.write_bytes(data)
        try:
            weights.load(path)
            read += 1
        except (ValueError, TypeError, OSError):
            refused += 1
        except BaseException:
            print(f"file {number} of {name}", file=sys.stderr)
            raise
        if number % BATCH == BATCH - 1:
            growth = max(growth, resident(peak=True) - before)
            before = resident()
            if time.perf_counter() - start > seconds:
                break
    taken = time.perf_counter() - start
    print(json.dumps({"read": read, "refused": refused, "seconds": taken, "growth": growth}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
