"""GGUF sources with tensors of types that are not quantized: copied byte for byte, and said."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from engine.api.formats import FORMATS, LAYOUTS, STORED
from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe, Rule
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import UnknownTypeError
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from engine.summary import export_summary
from tests.engine.checkpoint.samples import finish, gguf_bytes, info, string_pair, u32_pair

WEIGHT = "blk.0.attn_q.weight"
COUNT = len([name for name in STORED if name in GGMLQuantizationType.__members__])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of weights, and a tensor of each type that is only copied; as floats these would be NaN."""
    path = tmp_path_factory.mktemp("stored") / "model.gguf"
    writer = gguf.GGUFWriter(path, "nonesuch")
    writer.add_block_count(1)
    writer.add_file_type(1)
    writer.add_tensor(WEIGHT, np.random.default_rng(1).standard_normal((64, 256)).astype(np.float16))
    for name in STORED:
        if name in GGMLQuantizationType.__members__:
            kind = GGMLQuantizationType[name]
            values, size = GGML_QUANT_SIZES[kind]
            data = np.full((3, 256 // values * size), 255, np.uint8)
            if name == "F64":
                data = np.array([[1 / 3] * 256] * 3).view(np.uint8)
            writer.add_tensor(f"blk.0.{name}.weight", data, raw_dtype=kind)
    writer.add_tensor("steps", np.array([7, -1], np.int32))
    finish(writer)
    return path


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def stored(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, t.shape.tolist(), t.data.tobytes()) for t in tensors}


def test_they_are_copied_and_said_and_the_rest_is_quantized(model: Path, tmp_path: Path) -> None:
    recipe = Recipe(default=Choice(format="Q4_K"), rules=[Rule(match="steps", format="Q8_0")])
    output = tmp_path / "out.gguf"
    with open_checkpoint(model) as checkpoint:
        prepared = prepare(checkpoint, recipe)
        assert export_summary(checkpoint).file_bytes(prepared.plan, recipe.output.options) == prepared.size
    result = quantize(QuantizeRequest(model=str(model), output=str(output), recipe=recipe))
    assert output.stat().st_size == result.predicted_bytes == prepared.size
    before, after = stored(model), stored(output)
    assert before.keys() == after.keys()
    assert after.pop(WEIGHT)[0] == "Q4_K"
    assert after == {name: found for name, found in before.items() if name != WEIGHT}
    assert {found[0] for found in after.values()} == {*STORED} - {"Q2_0"}
    assert result.warnings == [
        "rule 1 ('steps') has no effect: every tensor it matches is kept in I32",
        f"{COUNT + 1} tensors are stored as {', '.join(sorted({*STORED} - {'Q2_0'}))}, which are not "
        "quantized; they are copied byte for byte",
    ]
    with open_checkpoint(model) as checkpoint:  # what `inspect` and the window's table show
        steps = next(tensor for tensor in checkpoint.summary().tensors if tensor.name == "steps")
    assert (steps.dtype, steps.shape, steps.bytes) == ("I32", (2,), 8)


def test_copy_keeps_every_byte_and_the_file_s_type(model: Path, tmp_path: Path) -> None:
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, "COPY")
    result = quantize(QuantizeRequest(model=str(model), output=str(tmp_path / "o.gguf"), recipe=recipe))
    assert stored(tmp_path / "o.gguf") == stored(model)
    assert gguf.GGUFReader(tmp_path / "o.gguf").fields["general.file_type"].contents() == 1
    assert result.warnings == []


def one_tensor(path: Path, number: int, data: bytes, *more: bytes) -> Path:
    pairs = [string_pair("general.architecture", "nonesuch"), *more]
    path.write_bytes(gguf_bytes(pairs, [info("w.weight", (2, 128), number, 0)], data))
    return path


def test_a_type_that_the_library_does_not_know(tmp_path: Path) -> None:
    """Q2_0 of llama.cpp, with its number for such files: no reader but ours knows the blocks."""
    data = bytes(range(72))
    source = one_tensor(tmp_path / "m.gguf", 42, data, u32_pair("general.file_type", 41))
    request = QuantizeRequest(
        model=str(source), output=str(tmp_path / "o.gguf"), recipe=Recipe(default=Choice(format="Q4_0"))
    )
    assert quantize(request).warnings == []  # there is nothing else: it is as if copied
    with open_checkpoint(tmp_path / "o.gguf") as checkpoint:
        tensor = checkpoint.tensors["w.weight"]
        out = np.empty(72, np.uint8)
        checkpoint.read_bytes(tensor, 0, out)
        assert (tensor.dtype, tensor.shape, out.tobytes()) == ("Q2_0", (2, 128), data)
        assert checkpoint.metadata["general.file_type"].value == 41


def test_values_without_axes_and_tensors_without_values(tmp_path: Path) -> None:
    i32, f16 = GGMLQuantizationType.I32, GGMLQuantizationType.F16
    infos = [info("a", (), i32, 0), info("b.weight", (), f16, 32), info("c", (4, 0), i32, 64)]
    data = bytes(range(70))
    pairs = [string_pair("general.architecture", "nonesuch")]
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(pairs, [*infos, info("d", (0, 8), i32, 64)], data))
    recipe = Recipe(default=Choice(format="Q4_0"))
    quantize(QuantizeRequest(model=str(tmp_path / "m.gguf"), output=str(tmp_path / "o.gguf"), recipe=recipe))
    assert stored(tmp_path / "o.gguf") == {
        "a": ("I32", [1], data[:4]),
        "b.weight": ("F16", [1], data[32:34]),
        "c": ("I32", [0, 4], b""),
        "d": ("I32", [8, 0], b""),
    }


@pytest.mark.parametrize("number", [4, 31, 43, 1 << 31])
def test_a_type_of_unknown_size_is_refused(tmp_path: Path, number: int) -> None:
    source = one_tensor(tmp_path / "m.gguf", number, bytes(64))
    said = rf"m\.gguf stores w\.weight as GGML type {number}, which is not known, nor is its size; convert"
    with pytest.raises(UnknownTypeError, match=said):
        open_checkpoint(source)


def test_sizes_are_the_library_s() -> None:
    known = {kind.name: sizes for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {**known, "Q2_0": (64, 18)} == {
        name: (layout.block_values, layout.block_bytes) for name, layout in LAYOUTS.items()
    }
    assert not FORMATS.keys() & STORED.keys()
