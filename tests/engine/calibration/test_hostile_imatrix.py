"""Importance matrices made to do harm."""

import struct

import pytest

from tests.engine.checkpoint.samples import gguf_bytes, info, string_pair
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check

test_damage = no_damage("imatrix", 200)
test_bytes = no_bytes("imatrix", 40)

KIND = [string_pair("general.type", "imatrix")]


@pytest.mark.parametrize(
    ("shape", "counts"), [((0,), (1,)), ((1, 0), (1, 1)), ((0, 2), (0, 1)), ((0, 1 << 60), (1,))]
)
def test_sums_of_no_size(shape, counts):
    infos = [info("a.in_sum2", shape, 0, 0), info("a.counts", counts, 0, 0)]
    assert check(READERS["imatrix"], gguf_bytes(KIND, infos, bytes(32)))


def test_a_single_number_is_a_matrix_of_one():
    infos = [info("a.in_sum2", (), 0, 0), info("a.counts", (), 0, 32)]
    assert check(READERS["imatrix"], gguf_bytes(KIND, infos, bytes(64))) == []


def test_sums_near_the_largest_number():
    infos = [info("a.in_sum2", (1, 2), 0, 0), info("a.counts", (1, 1), 0, 32)]
    data = struct.pack("<2f", 3e38, 3e38) + bytes(24) + struct.pack("<f", 2)
    assert check(READERS["imatrix"], gguf_bytes(KIND, infos, data)) == []
