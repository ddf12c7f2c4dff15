"""pytorch_model.bin: hostile pickles are refused unexecuted, damage is named."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.api.errors import CheckpointError
from engine.checkpoint import errors, open_checkpoint


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def archive(pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    """A torch archive of the given pickle; `records` by key."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in records.items():
            file.writestr(f"archive/{key}" if key == "byteorder" else f"archive/data/{key.lstrip('_')}", data)
    return buffer.getvalue()


def expect(path: Path, content: bytes, kind: type[CheckpointError], message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def test_wrappers_of_trainers(path: Path) -> None:
    weights = OrderedDict(w=torch.nn.Parameter(torch.rand(3, 4)), b=torch.rand(4).to(torch.float8_e5m2))
    path.write_bytes(saved({"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": weights}))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w", "b"]
        np.testing.assert_array_equal(checkpoint.read("w"), weights["w"].detach().numpy())
        np.testing.assert_array_equal(checkpoint.read("b"), weights["b"].float().numpy())


def test_code_is_named_and_not_executed(path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    expect(
        path,
        archive(pickle.dumps({"w": Call(os.system, f"touch {trace}")}, 2)),
        errors.UnsafePickleError,
        r"asks to call (posix|nt)\.system",
    )
    expect(path, saved({"w": Call(eval, "1")}), errors.UnsafePickleError, r"asks to call \w+\.eval")
    for harmless in (getattr, print):
        pickled = pickle.dumps({"w": Call(harmless, "text", "upper")}, 2)
        expect(path, archive(pickled), errors.UnsafePickleError, harmless.__name__)
    assert not trace.exists()


def test_a_whole_model_is_no_state_dict(path: Path) -> None:
    expect(
        path, saved(torch.nn.Linear(2, 2)), errors.UnsafePickleError, r"torch\.nn\.modules\.linear\.Linear"
    )
    expect(path, saved([1, 2]), errors.NotAModelError, "no dictionary of tensors")
    expect(path, saved({"lr": 0.1}), errors.NotAModelError, "no dictionary of tensors")


def test_a_memo_index_that_would_take_all_memory(path: Path) -> None:
    """It does for Python's own pickle, which keeps the memo in an array."""
    pickled = b"\x80\x02}r" + struct.pack("<I", 0x7FFFFFFF) + b"."
    tracemalloc.start()
    expect(path, archive(pickled), errors.NotAModelError, "no dictionary of tensors")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80\x02", b"\x80\x02].", b"\x80\x02(((.", b"garbage", b"\x80\x02Nb."]
)
def test_pickles_of_nonsense(path: Path, pickled: bytes) -> None:
    path.write_bytes(archive(pickled))
    with pytest.raises((errors.BadHeaderError, errors.NotAModelError)):
        open_checkpoint(path)


def test_damage(path: Path) -> None:
    content = saved({"w": torch.rand(50, 50)})
    expect(path, content[:-30], errors.BadHeaderError, "damaged or truncated zip archive")
    expect(path, content[: len(content) // 2], errors.BadHeaderError, "damaged or truncated zip archive")
    pickled = zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl")
    expect(path, archive(pickled), errors.BadHeaderError, "the record of w is missing")
    expect(path, archive(pickled, _0=bytes(9_999)), errors.TensorOffsetsError, "w reaches beyond its storage")
    path.write_bytes(archive(pickled, _0=bytes(10_000)))
    open_checkpoint(path).close()
    squeezed = archive(pickled, zipfile.ZIP_DEFLATED, _0=bytes(10_000))
    expect(path, squeezed, errors.BadHeaderError, "is compressed")
    big = archive(pickled, _0=bytes(10_000), byteorder=b"big")
    expect(path, big, errors.ByteOrderError, "big-endian")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("hello.txt", "hello")
    expect(path, other.getvalue(), errors.NotAModelError, "a zip archive without PyTorch tensors")


def test_transposed_views(path: Path) -> None:
    expect(path, saved({"w": torch.rand(3, 4).T}), errors.NotAModelError, "w as a transposed or strided view")
    path.write_bytes(saved({"w": torch.rand(1, 4).T, "none": torch.rand(0, 4).T}))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").shape == (4, 1)
        assert checkpoint.read("none").shape == (4, 0)


def test_random_damage_never_ends_in_another_error(path: Path) -> None:
    content = saved({"a": torch.rand(3, 4), "b": torch.rand(2).bfloat16()})
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content), 4):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        try:
            with open_checkpoint(path) as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.read(name)
        except CheckpointError:
            refused += 1
    assert refused > 100
