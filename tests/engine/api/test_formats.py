"""The catalogue of formats against llama.cpp's own table of block sizes."""

import gguf
import pytest

from engine.api.formats import DEFAULT_METHOD, FORMATS, METHODS
from engine.formats import format_of
from engine.methods import SOLVERS


@pytest.mark.parametrize("name", FORMATS)
def test_sizes_are_ggmls(name):
    kind = gguf.GGMLQuantizationType[name]
    info = FORMATS[name]
    assert (info.block_values, info.block_bytes) == gguf.GGML_QUANT_SIZES[kind]
    assert info.bits == 8 * info.block_bytes / info.block_values


def test_what_is_listed_is_what_there_is():
    assert [format_of(name).name for name in FORMATS] == list(FORMATS)
    assert METHODS.keys() == SOLVERS.keys()
    assert DEFAULT_METHOD in METHODS


@pytest.mark.parametrize("name", FORMATS)
def test_fallback_takes_rows_that_the_format_does_not(name):
    info = FORMATS[name]
    if info.block_values == 1:
        assert info.fallback is None
    else:
        assert FORMATS[info.fallback].block_values < info.block_values


def test_rows_that_do_not_divide_are_refused():
    assert FORMATS["Q4_K"].row_bytes(512) == 288
    with pytest.raises(ValueError, match="Q4_K stores blocks of 256; 288 columns"):
        FORMATS["Q4_K"].row_bytes(288)
