"""What a signal's handler raises comes out as itself, wherever it was raised."""

import os
import signal
import sys

import numpy as np
import pytest
import torch

import fastrnn
from cases import make
from fastrnn import check, weights
from fastrnn_kernels import handlers

SUFFIXES = (".safetensors", ".pt", ".keras", ".weights.h5", ".onnx", ".json", ".npz")


class TooLateError(TimeoutError):
    """What a timeout raises; an OSError, as readers raise some."""


class WrongValueError(ValueError):
    """Of the kind that readers make their own of."""


class WrongKindError(TypeError):
    """Of the kind that is raised for what is no array."""


KINDS = [
    TooLateError,
    WrongValueError,
    WrongKindError,
    RuntimeError,
    KeyError,
    AttributeError,
    MemoryError,
]


@pytest.fixture(autouse=True)
def handler():
    """Raises what is put in its list; put back afterwards."""
    told = []

    def raises(*_):
        raise told[0]

    before = signal.signal(signal.SIGUSR1, raises)
    yield told
    signal.signal(signal.SIGUSR1, before)


class Interrupted:
    """An array whose reading takes so long that the signal comes."""

    dtype = np.dtype("float32")

    def __array__(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGUSR1)
        return np.zeros(3, np.float32)


class InterruptedOnItsDevice(Interrupted):
    def __dlpack_device__(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        return 1, 0


class InterruptedType:
    @property
    def dtype(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        return np.dtype("float32")


CALLS = {
    "array": lambda: check.array("x", Interrupted()),
    "device": lambda: check.array("x", InterruptedOnItsDevice()),
    "lengths": lambda: make("GRU", 3, 4)(np.zeros((2, 1, 3), "f4"), lengths=Interrupted()),
    "input": lambda: make("GRU", 3, 4)(Interrupted()),
    "parameter": lambda: make("GRU", 3, 4).update({"bias_hh_l0": Interrupted()}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_in_what_checks_arguments(name, kind, handler):
    handler[:] = [kind("of the handler")]
    with pytest.raises(kind) as caught:
        CALLS[name]()
    assert caught.value is handler[0]


@pytest.mark.parametrize("kind", [TooLateError, WrongValueError])  # NumPy takes some for its own
def test_in_what_checks_a_type(kind, handler):
    handler[:] = [kind("of the handler")]
    with pytest.raises(kind) as caught:
        fastrnn.GRU(3, 4, dtype=InterruptedType())
    assert caught.value is handler[0]


def load_until(path, last):
    """Read a file, and have the signal come as the function of this number is called.

    Functions of Python's, of libraries as of fastrnn; the number of them is returned.
    """
    calls = 0

    def profile(frame, event, argument):
        nonlocal calls
        if event == "call":
            calls += 1
            if calls == last:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

    sys.setprofile(profile)
    try:
        weights.load(path)
    finally:
        sys.setprofile(None)
    return calls


def interrupted(path, last, handler, kind, lost):
    """What comes up in place of a handler's exception; None if that does, or none came there."""
    handler[:] = [kind("of the handler")]
    try:
        fewer = load_until(path, last) < last  # a destructor less than the first time
    except Exception as error:
        return None if error is handler[0] else error
    if fewer or (lost and lost[-1] is handler[0]):
        return None
    return LookupError("it is lost")


@pytest.mark.parametrize("kind", [TooLateError, WrongValueError])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_in_a_reader(suffix, kind, tmp_path, handler, monkeypatch):
    """At any of them; but what is raised in a destructor of a library, Python only tells of."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_value))
    path = tmp_path / f"model{suffix}"
    weights.save(make("LSTM", 3, 4), path)
    weights.load(path)
    many = load_until(path, None)
    assert many > 10
    for last in {round(place) for place in np.linspace(1, many, 150)}:
        # Twice, as a collection of garbage comes at other places the next time.
        came = [interrupted(path, last, handler, kind, lost) for _ in range(2)]
        told = [str(error) for error in came if error is not None]
        # Who leaves h5py's lock with an exception is told of another one, by Cython.
        assert len([one for one in told if "with an exception set" not in one]) < 2, (last, told)
    assert len(lost) < 100
    assert weights.load(path).parameters


class Broken:
    """An array that cannot be read."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *args, **kwargs):
        raise self.error


def test_what_an_object_raises_itself_is_told_as_before():
    error = RuntimeError("grad")
    with pytest.raises(TypeError, match="x is no array: grad") as caught:
        check.array("x", Broken(error))
    assert caught.value.__cause__ is error
    grown = torch.zeros(3, requires_grad=True)
    with pytest.raises(TypeError, match=r"x is no array: .*grad"):
        check.array("x", grown)
    for other in (ZeroDivisionError("of its own"), EOFError("of its own")):
        with pytest.raises(type(other)) as caught:  # nothing that an array's protocol raises
            check.array("x", Broken(other))
        assert caught.value is other


def test_how_a_handlers_exception_is_known():
    """By a frame that was given the one it was called from; not by its type or its name."""

    def like_one(signum, frame):
        raise TooLateError

    class Method:
        def handle(self, signum, frame):
            raise TooLateError

        def __call__(self, *, frame):
            raise TooLateError

    for call in (
        lambda: like_one(1, sys._getframe()),
        lambda: Method().handle(1, sys._getframe()),
        lambda: Method()(frame=sys._getframe()),
    ):
        with pytest.raises(TooLateError) as caught:
            call()
        with pytest.raises(TooLateError) as again:
            handlers.pass_on(caught.value)
        assert again.value is caught.value
    with pytest.raises(TooLateError) as caught:
        like_one(1, None)
    handlers.pass_on(caught.value)  # which returns
    handlers.pass_on(TooLateError("never raised"))


@pytest.mark.parametrize("value", [None, np.zeros((3, 3), "f4").view(np.matrix), {}, object()])
def test_what_is_no_array_is_named(value):
    layer = make("GRU", 3, 4)
    wanted = {
        type(None): "input is None, wanted an array", np.matrix: "input is NumPy's matrix, wanted",
        dict: "input is a dict of dtype object, wanted an array",
        object: "input is an object of dtype object, wanted an array",
    }  # fmt: skip
    for call in (layer, layer.forward, layer.stream().block):
        with pytest.raises(TypeError, match=wanted[type(value)]):
            call(value)


def test_matrices_are_refused_everywhere():
    layer, x = make("GRU", 3, 4), np.zeros((2, 3), "f4")
    state = np.zeros((1, 4), "f4").view(np.matrix)
    with pytest.raises(TypeError, match="state is NumPy's matrix, wanted an array"):
        layer(x, state)
    with pytest.raises(TypeError, match="bias_hh_l0 is NumPy's matrix"):
        layer.update({"bias_hh_l0": np.zeros((1, 12), "f4").view(np.matrix)})


def test_an_exception_that_was_told_before_is_not_told_again(tmp_path, handler):
    """Who reads another file after a timeout hears of that file."""
    (tmp_path / "a.npz").write_bytes(b"none")
    handler[:] = [TooLateError("of the handler")]
    try:
        signal.raise_signal(signal.SIGUSR1)
    except TooLateError:
        with pytest.raises(ValueError, match=r"a\.npz': it is no whole archive"):
            weights.load(tmp_path / "a.npz")
