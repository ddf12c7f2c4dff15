"""The header and the file's size against `gguf`'s own writer and reader; verification against damage."""

from itertools import pairwise
from math import prod
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from engine.api.formats import FORMATS
from engine.api.gguf import GgufValue
from engine.checkpoint import open_checkpoint
from engine.export.gguf import Export, make_parts, plan_export, verify
from engine.export.gguf.verify import VerificationError
from tests.engine.export.models import LLAMA3, write_gguf, write_model

MIXED = {"attn_q": "Q8_0", "attn_k": "Q4_0", "attn_v": "Q5_1", "ffn_up": "F16", "ffn_gate": "BF16"}


def mixed_formats(export: Export) -> dict[str, str]:
    """Several formats over the matrices; rows of 64 and 160 values divide by 32."""
    kinds = {tensor.name: tensor.name.split(".")[-2] for tensor in export.tensors}
    return {t.name: MIXED.get(kinds[t.name], "F32") if len(t.shape) > 1 else "F32" for t in export.tensors}


def written(tmp_path: Path, alignment: int | None = None) -> tuple[Path, Export, dict[str, str], dict]:
    path = tmp_path / "model.gguf"
    with open_checkpoint(write_model(tmp_path / "model", rope_scaling=LLAMA3)) as checkpoint:
        export = plan_export(checkpoint)
        if alignment:
            export.metadata["general.alignment"] = GgufValue(GGUFValueType.UINT32, alignment)
        formats = mixed_formats(export)
        return path, export, formats, write_gguf(checkpoint, export, path, formats)


def check(path: Path, export: Export, formats: dict[str, str], checksums: dict[str, int]) -> None:
    """Verify a file that holds all of the export."""
    (part,) = make_parts(export, formats, 0)
    verify(path, part, export.tensors, formats, checksums)


@pytest.mark.parametrize("alignment", [None, 32, 64, 256])
def test_the_file_is_what_ggufs_own_writer_writes(alignment: int | None, tmp_path: Path) -> None:
    path, export, formats, _ = written(tmp_path, alignment)
    writer = GGUFWriter(tmp_path / "peer.gguf", "llama")
    for key, value in export.metadata.items():
        if key == "general.alignment":
            writer.add_custom_alignment(value.value)
        elif key != "general.architecture":
            writer.add_key_value(key, value.value, value.type, value.item_type)
    writer.add_file_type(0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    with open_checkpoint(tmp_path / "model") as checkpoint:
        for tensor in export.tensors:
            kind = gguf.GGMLQuantizationType[formats[tensor.name]]
            data = gguf.quants.quantize(tensor.read(checkpoint, 0, prod(tensor.shape[:-1])), kind)
            if len(tensor.shape) == 1:
                data = data[0]
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert path.read_bytes() == (tmp_path / "peer.gguf").read_bytes()


def test_predicted_size_and_offsets(tmp_path: Path) -> None:
    path, export, formats, _ = written(tmp_path)
    (part,) = make_parts(export, formats, 0)
    assert path.stat().st_size == part.size
    reader = GGUFReader(path)
    assert {t.name: t.data_offset for t in reader.tensors} == part.offsets
    assert reader.data_offset == len(part.header)
    assert {t.name: t.tensor_type.name for t in reader.tensors} == formats
    shapes = {t.name: tuple(int(size) for size in reversed(t.shape)) for t in reader.tensors}
    assert shapes == {t.name: t.shape for t in export.tensors}
    for key, value in export.metadata.items():
        contents = reader.fields[key].contents()
        assert np.array_equal(contents, value.value) or contents == pytest.approx(value.value, rel=1e-6), key


def test_texts_that_are_not_utf8_stay_as_they_are(tmp_path: Path) -> None:
    """A token cut inside of a character, in a GGUF source: the same bytes again."""
    text, texts = b"caf\xe9 \xc3", [b"\xe6\x95", "数".encode()]
    source = tmp_path / "source.gguf"
    with open_checkpoint(write_model(tmp_path / "model")) as checkpoint:
        export = plan_export(checkpoint)
        export.metadata["llama.text"] = GgufValue(GGUFValueType.STRING, text)
        export.metadata["llama.texts"] = GgufValue(GGUFValueType.ARRAY, texts, GGUFValueType.STRING)
        write_gguf(checkpoint, export, source)
    with open_checkpoint(source) as checkpoint:
        export = plan_export(checkpoint)
        formats = mixed_formats(export)
        path = tmp_path / "again.gguf"
        check(path, export, formats, write_gguf(checkpoint, export, path, formats))
    fields = GGUFReader(path).fields
    assert bytes(fields["llama.text"].parts[-1]) == text
    assert [bytes(fields["llama.texts"].parts[i]) for i in fields["llama.texts"].data] == texts


def test_rows_that_do_not_divide_are_a_defect(tmp_path: Path) -> None:
    with open_checkpoint(write_model(tmp_path / "model")) as checkpoint:
        export = plan_export(checkpoint)
    formats = {tensor.name: "Q4_K" for tensor in export.tensors}
    with pytest.raises(ValueError, match="Q4_K stores blocks of 256; 64 columns"):
        make_parts(export, formats, 0)


def test_a_good_file_verifies(tmp_path: Path) -> None:
    path, export, formats, checksums = written(tmp_path)
    check(path, export, formats, checksums)


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    path, export, formats, checksums = written(tmp_path)
    (part,) = make_parts(export, formats, 0)
    start, offsets = part.header, part.offsets
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    places = [3, 40, len(start) - 1, *offsets.values(), *generator.integers(24, len(start), 20)]
    for place in map(int, places):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(VerificationError, match=r"model\.gguf was written but"):
            check(path, export, formats, checksums)


@pytest.mark.parametrize("change", [-1, 1, -100_000])
def test_a_file_of_another_length_is_found(change: int, tmp_path: Path) -> None:
    path, export, formats, checksums = written(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[:change] if change < 0 else good + b"\0" * change)
    with pytest.raises(VerificationError, match="was written but"):
        check(path, export, formats, checksums)


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    path, export, formats, checksums = written(tmp_path)
    path.unlink()
    with pytest.raises(VerificationError, match="does not read back"):
        check(path, export, formats, checksums)


@pytest.mark.parametrize("alignment", [32, 128])
@pytest.mark.parametrize("most", [60_000, 100_000, 250_000])
def test_parts_hold_every_tensor_once_and_as_many_as_fit(alignment: int, most: int, tmp_path: Path) -> None:
    _, export, formats, _ = written(tmp_path, alignment)
    parts = make_parts(export, formats, 0, most)
    names = [name for part in parts for name in part.offsets]
    assert names == [tensor.name for tensor in export.tensors]
    for part, following in pairwise(parts):
        first = next(tensor for tensor in export.tensors if tensor.name in following.offsets)
        first_bytes = prod(first.shape[:-1]) * FORMATS[formats[first.name]].row_bytes(first.shape[-1])
        assert part.size <= most or len(part.offsets) == 1
        assert part.size + first_bytes + 24 + len(first.name) + 8 * len(first.shape) > most - 2 * alignment
    assert all(offset % alignment == 0 for part in parts for offset in part.offsets.values())


def test_what_fits_is_not_split(tmp_path: Path) -> None:
    _, export, formats, _ = written(tmp_path)
    (whole,) = make_parts(export, formats, 0)
    assert make_parts(export, formats, 0, whole.size) == [whole]
    assert len(make_parts(export, formats, 0, whole.size - 1)) == 2


def test_lists_without_items_stay(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    with open_checkpoint(write_model(tmp_path / "model")) as checkpoint:
        export = plan_export(checkpoint)
        export.metadata["llama.none"] = GgufValue(GGUFValueType.ARRAY, [], GGUFValueType.INT32)
        write_gguf(checkpoint, export, source)
    with open_checkpoint(source) as checkpoint:
        found = plan_export(checkpoint).metadata["llama.none"]
    assert (found.value, found.item_type) == ([], GGUFValueType.INT32)
