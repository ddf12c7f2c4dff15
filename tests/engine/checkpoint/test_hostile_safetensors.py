"""Safetensors files made to do harm: whatever their headers say, they are read or refused in order."""

import numpy as np
import pytest

from engine.checkpoint import check_finite, errors, open_checkpoint
from tests.engine.checkpoint.samples import expect_refusal, safetensors_bytes, write_safetensors
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check
from tests.fuzz.seeds import safetensors

test_damage = no_damage("safetensors", 700)
test_bytes = no_bytes("safetensors")

EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def header(name: bytes, shape: bytes, offsets: bytes = b"[0,0]", dtype: bytes = b"U8") -> bytes:
    entry = b'"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}' % (name, dtype, shape, offsets)
    return safetensors_bytes(b"{" + entry + b"}", bytes(8))


HOSTILE = {
    "sizes of 4300 digits": header(b"w", b"[%s]" % (b"9" * 4300), b"[0,%s]" % (b"9" * 4300)),
    "65 axes": header(b"w", b"[" + b"1," * 64 + b"8]", b"[0,8]"),
    "a newline in a name": header(rb"a\nb", b"[8]", b"[0,8]"),
    "a NUL in a name": header(rb"a\u0000b", b"[8]", b"[0,8]"),
    "a name that is written backwards": header(rb"\u202eb", b"[8]", b"[0,8]"),
    "a name of 3,000 letters": header(b"w" * 3000, b"[8]", b"[0,8]"),
    "true for a size": header(b"w", b"[true]", b"[0,1]"),
    "not a number": header(b"w", b"[NaN]", b"[0,8]"),
    "infinity": header(b"w", b"[1e999]", b"[0,8]"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_as_damaged(tmp_path, case):
    assert check(READERS["safetensors"], HOSTILE[case])
    (tmp_path / "model.safetensors").write_bytes(HOSTILE[case])
    with pytest.raises(errors.BadHeaderError):
        open_checkpoint(tmp_path)


def test_an_empty_tensor_of_a_size_that_no_array_has(tmp_path):
    content = safetensors_bytes(b'{"w":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]}}')
    (tmp_path / "w.safetensors").write_bytes(content)
    expect_refusal(tmp_path / "w.safetensors", errors.BadHeaderError, "no array can have the shape")


def test_a_name_twice_among_many_is_found_in_no_time():
    """A search for each name among all took minutes for a file of 2 MB."""
    entries = [b'"%d":%s' % (number, EMPTY) for number in range(20_000)]
    (said,) = check(
        READERS["safetensors"], safetensors_bytes(b"{" + b",".join([*entries, entries[-1]]) + b"}")
    )
    assert "names '19999' twice" in said


def test_scales_of_scales_are_read_once(tmp_path):
    """FP8 scales that are FP8 with scales, and so on, were read a number of times that doubles each time."""
    names = ["w" + "_scale" * depth for depth in range(80)]
    made = dict.fromkeys(names, ("F8_E4M3", (1,), b"8"))
    assert check(READERS["safetensors"], safetensors(made)) == []


@pytest.mark.parametrize("item", [b"[]", b"{}", b'{"":0}', b"[0]", '"Ā"'.encode(), b"1e1"])
def test_memory_for_headers_of_small_items(item):
    """JSON's smallest items cost most; one sign beyond the 16-bit ones makes four bytes of every letter."""
    check(
        READERS["safetensors"], safetensors_bytes('{"w":["𝄞",'.encode() + b",".join([item] * 60_000) + b"]}")
    )


def test_memory_for_many_tensors():
    entries = [b'"%x":%s' % (number, EMPTY) for number in range(5_000)]
    assert check(READERS["safetensors"], safetensors_bytes(b"{" + b",".join(entries) + b"}")) == []


def test_a_double_beyond_single_precision_counts_as_infinite(tmp_path):
    largest, beyond = 3.4028235677973362e38, 3.4028235677973366e38
    for value, fits in ((largest, True), (-largest, True), (beyond, False), (-beyond, False)):
        tensors = {"w": ("F64", np.array([0, value]))}
        with open_checkpoint(write_safetensors(tmp_path / "w.safetensors", tensors)) as checkpoint:
            assert np.isfinite(checkpoint.read("w")).all() == fits
            if fits:
                check_finite(checkpoint)
            else:
                with pytest.raises(errors.NonFiniteError, match=r"infinite at \[1\]"):
                    check_finite(checkpoint)
