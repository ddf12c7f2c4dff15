"""NaN and infinity are found, at their place, whatever the weights are stored as."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from safetensors.torch import save_file

from engine.api.progress import Progress
from engine.checkpoint import check_finite, open_checkpoint
from engine.checkpoint.errors import NonFiniteError
from engine.checkpoint.finite import SCALE_OFFSETS
from tests.engine.checkpoint.samples import gguf_bytes, info

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", [(0, 0), (700, 999), (1200, 0)])
def test_the_first_bad_value_is_named(
    tmp_path: Path, dtype: torch.dtype, bad: float, position: tuple[int, int]
) -> None:
    if dtype == torch.float8_e4m3fn:
        bad = float("nan")  # it has no infinity
    weights = torch.randn(1201, 1000).to(dtype)  # more than a piece of a mebibyte in every type
    weights[position] = bad
    weights[1200, 999] = float("nan")
    save_file({"good": torch.ones(7).to(dtype), "weights": weights}, tmp_path / "model.safetensors")
    place = r"\[" + ", ".join(map(str, position)) + r"\]"
    with (
        open_checkpoint(tmp_path) as checkpoint,
        pytest.raises(NonFiniteError, match=f"weights in .*model.safetensors is NaN or infinite at {place}"),
    ):
        check_finite(checkpoint)


def test_every_finite_value_passes_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for dtype in (torch.float16, torch.bfloat16):
        values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = values[torch.isfinite(values)]
        save_file({"w": finite}, path)
        with open_checkpoint(path) as checkpoint:
            check_finite(checkpoint)
        for value in values[~torch.isfinite(values)][:: 1 << 6]:
            save_file({"w": torch.stack([finite[0], value])}, path)
            with open_checkpoint(path) as checkpoint, pytest.raises(NonFiniteError, match=r"at \[1\]"):
                check_finite(checkpoint)


def test_integers_are_passed_over_and_progress_is_told(tmp_path: Path) -> None:
    save_file({"i": torch.full((10,), -1), "w": torch.ones(6)}, tmp_path / "model.safetensors")
    events: list[Progress] = []
    with open_checkpoint(tmp_path) as checkpoint:
        check_finite(checkpoint, events.append)
    assert events[-1] == Progress("check weights", 104, 104, "bytes")
    assert {event.item for event in events} == {"i", "w", ""}
    assert [event.done for event in events] == sorted(event.done for event in events)


def random_blocks(name: str, count: int) -> np.ndarray:
    """uint8 [count, bytes] of a block type, all codes random, every half-precision scale 1.5."""
    _, width = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = np.random.default_rng(0).integers(0, 256, (count, width), np.uint8)
    for offset in SCALE_OFFSETS[name]:
        blocks[:, offset : offset + 2] = np.float16(1.5).tobytes()[0], np.float16(1.5).tobytes()[1]
    return blocks


@pytest.mark.parametrize("name", SCALE_OFFSETS)
def test_scales_of_blocks(tmp_path: Path, name: str) -> None:
    """With finite scales every code decodes to a finite value; without, the block is named."""
    kind = GGMLQuantizationType[name]
    values, _ = GGML_QUANT_SIZES[kind]
    blocks = random_blocks(name, 12)
    path = tmp_path / "model.gguf"

    def write(content: np.ndarray) -> None:
        path.write_bytes(gguf_bytes([], [info("w", (4, 3 * values), kind, 0)], content.tobytes()))

    assert np.isfinite(quants.dequantize(blocks.reshape(1, -1), kind)).all()
    write(blocks)
    with open_checkpoint(path) as checkpoint:
        check_finite(checkpoint)
    for offset in SCALE_OFFSETS[name]:
        for bad in (np.nan, np.inf, -np.inf):
            damaged = blocks.copy()
            damaged[7, offset : offset + 2] = np.frombuffer(np.float16(bad).tobytes(), np.uint8)
            with np.errstate(all="ignore"):
                assert not np.isfinite(quants.dequantize(damaged[7:8], kind)).all()
            write(damaged)
            place = rf"\[2, {values}\]"  # block 7 of rows of 3
            with open_checkpoint(path) as checkpoint, pytest.raises(NonFiniteError, match=f"w in .* {place}"):
                check_finite(checkpoint)


@pytest.mark.parametrize(("name", "scale"), [("MXFP4", slice(0, 1)), ("IQ1_M", slice(48, 56))])
def test_types_that_are_decoded(tmp_path: Path, name: str, scale: slice) -> None:
    kind = GGMLQuantizationType[name]
    values, width = GGML_QUANT_SIZES[kind]
    blocks = np.full((4, width), 0x33, np.uint8)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([], [info("w", (2, 2 * values), kind, 0)], blocks.tobytes()))
    with open_checkpoint(path) as checkpoint:
        check_finite(checkpoint)
    blocks[2, scale] = 0xFF
    path.write_bytes(gguf_bytes([], [info("w", (2, 2 * values), kind, 0)], blocks.tobytes()))
    with open_checkpoint(path) as checkpoint, pytest.raises(NonFiniteError, match=r"at \[1, 0\]"):
        check_finite(checkpoint)


def test_the_sample_model_is_finite() -> None:
    with open_checkpoint("resources/sample-model") as checkpoint:
        check_finite(checkpoint)
