"""The catalogue of formats against llama.cpp's own table of block sizes."""

import gguf
import pytest

from engine.api.formats import DEFAULT_EFFORT, DEFAULT_METHOD, EFFORTS, FORMATS, METHODS
from engine.formats import format_of


@pytest.mark.parametrize("name", FORMATS)
def test_sizes_are_ggmls(name):
    kind = gguf.GGMLQuantizationType[name]
    info = FORMATS[name]
    assert (info.block_values, info.block_bytes) == gguf.GGML_QUANT_SIZES[kind]
    assert info.bits == 8 * info.block_bytes / info.block_values


def test_what_is_listed_is_what_there_is():
    assert [format_of(name).name for name in FORMATS] == list(FORMATS)
    assert DEFAULT_EFFORT in EFFORTS
    assert DEFAULT_METHOD in METHODS


@pytest.mark.parametrize("name", FORMATS)
def test_fallback_takes_rows_that_the_format_does_not(name):
    info = FORMATS[name]
    if info.block_values == 1:
        assert info.fallback is None
    else:
        assert FORMATS[info.fallback].block_values < info.block_values


@pytest.mark.parametrize(
    ("name", "fallback"),
    [
        ("Q4_K", "Q5_0"),
        ("Q5_K", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("Q2_K", "Q4_0"),
        ("TQ1_0", "Q4_0"),
        ("IQ1_M", "IQ4_NL"),
        ("IQ4_XS", "IQ4_NL"),
        ("IQ4_NL", "F16"),
        ("NVFP4", "F16"),
    ],
)
def test_fallbacks_are_llama_quantizes(name, fallback):
    assert FORMATS[name].fallback == fallback


def test_every_type_that_gguf_can_decode_is_there():
    kinds = gguf.GGMLQuantizationType
    decodable = {
        kind.name
        for kind in kinds
        if issubclass(getattr(gguf.quants, kind.name, int), gguf.quants.BF16.__base__)
    }
    assert len(decodable) > 20
    assert decodable <= FORMATS.keys()


def test_rows_that_do_not_divide_are_refused():
    assert FORMATS["Q4_K"].row_bytes(512) == 288
    with pytest.raises(ValueError, match="Q4_K stores blocks of 256; 288 columns"):
        FORMATS["Q4_K"].row_bytes(288)


def test_every_format_says_in_a_line_what_it_is():
    summaries = [info.summary for info in FORMATS.values()]
    assert len(set(summaries)) == len(summaries)
    assert all(0 < len(summary) <= 70 and not summary.endswith(".") for summary in summaries)
