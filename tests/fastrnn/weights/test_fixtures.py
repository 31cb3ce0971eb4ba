"""Files that earlier code wrote are read as what they were (`tests/fixtures`)."""

import json
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from digests import digest

FIXTURES = Path(__file__).parents[2] / "fixtures"
FILES = json.loads((FIXTURES / "files.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_model(name):
    model, wanted = fastrnn.load(FIXTURES / f"{name}.safetensors"), FILES[name]
    assert type(model).__name__ == wanted["class"]
    assert repr(model) == wanted["repr"]
    assert digest(*(model.parameters[n] for n in sorted(model.parameters))) == wanted["parameters"]


@pytest.mark.parametrize("name", FILES)
def test_it_is_written_as_it_was(name, tmp_path):
    model = fastrnn.load(FIXTURES / f"{name}.safetensors")
    model.save(tmp_path / "again.safetensors")
    written = (tmp_path / "again.safetensors").read_bytes()
    assert written == (FIXTURES / f"{name}.safetensors").read_bytes()


def test_a_snapshot_is_taken_up():
    stream = fastrnn.load(FIXTURES / "sequential.safetensors").stream()
    data = (FIXTURES / "sequential.snapshot").read_bytes()
    stream.restore(fastrnn.Snapshot.from_bytes(data))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    found = np.concatenate([stream.step(row).copy() for row in x[3:]])
    # The sums of the last stage are a CPU's own, by the width of its vectors.
    np.testing.assert_allclose(found, FILES["sequential"]["after"], rtol=1e-6, atol=1e-7)
