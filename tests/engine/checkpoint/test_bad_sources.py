"""Paths, folders, shards and configs that are wrong: one error each, one sentence that names the place."""

import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType

from engine.checkpoint import errors, open_checkpoint
from tests.engine.checkpoint.samples import (
    expect_refusal,
    gguf_bytes,
    info,
    pair,
    safetensors_bytes,
    write_safetensors,
    write_split,
)
from tests.tiny import write_llama

WEIGHT = info("w", (8,), 0, 0)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", errors.LfsPointerError, "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", errors.NotAModelError, "is not a model"),
        (bytes(100), errors.NotAModelError, "is not a model"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", errors.NotAModelError, "PyTorch before 1.6"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, kind: type, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    expect_refusal(path, kind, message)


def test_a_git_lfs_pointer_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    expect_refusal(tmp_path, errors.LfsPointerError, "git lfs pull")


def test_paths(tmp_path: Path) -> None:
    expect_refusal(
        tmp_path / "nothing", errors.MissingPathError, "does not exist; name a model folder or file"
    )
    expect_refusal(tmp_path, errors.EmptyFolderError, "is an empty folder")
    (tmp_path / "dangling").symlink_to("gone")
    expect_refusal(tmp_path / "dangling", errors.MissingPathError, "links to gone, which does not exist")
    (tmp_path / "notes.txt").write_text("hello")
    expect_refusal(tmp_path, errors.NoWeightsError, "no weights .* only dangling, notes.txt")
    expect_refusal(tmp_path / "notes.txt" / "model", errors.MissingPathError, "does not exist")
    expect_refusal(tmp_path / ("x" * 300), errors.UnreadableError, "cannot be read: File name too long")
    expect_refusal(Path("a\0b"), errors.MissingPathError, "is not a path")
    os.mkfifo(tmp_path / "pipe")
    expect_refusal(tmp_path / "pipe", errors.UnreadableError, "not a plain file")


def test_a_folder_of_several_ggufs(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(gguf_bytes([], [WEIGHT], bytes(32)))
    expect_refusal(tmp_path, errors.AmbiguousFolderError, "several models; name one of a.gguf, b.gguf")


@pytest.mark.parametrize(
    ("number", "message"), [(errno.EACCES, "no permission"), (errno.EIO, "Input/output error")]
)
def test_a_refused_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    """Injected: tests may run as root, whom no permission stops."""
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", np.ones(4, np.float32))})

    def refuse(path: Path, flags: int) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refuse)
    expect_refusal(path, errors.UnreadableError, message)


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    expect_refusal(tmp_path / "private" / "model", errors.UnreadableError, "no permission to read it")


def test_a_refused_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", np.ones(4, np.float32))})

    def refuse(descriptor: int, buffers: list, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_checkpoint(path) as checkpoint:
        monkeypatch.setattr(os, "preadv", refuse)
        with pytest.raises(errors.UnreadableError, match="Input/output error"):
            checkpoint.read("w")


def test_reads_that_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may give less than was asked for, as it does above 2 GiB and on some network disks."""
    values = np.arange(1000, dtype=np.float32)
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", values)})
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: whole(file, [buffers[0][:7]], at))
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), values)


def test_a_file_cut_after_it_was_opened(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", np.ones(4, np.float32))})
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, path.stat().st_size - 4)
        with pytest.raises(errors.TruncatedError, match="w needs"):
            checkpoint.read("w")


def test_shards(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, shards=3, tokenizer=None)
    index = folder / "model.safetensors.index.json"
    second = folder / "model-00002-of-00003.safetensors"
    content = second.read_bytes()

    second.unlink()
    expect_refusal(folder, errors.MissingShardError, "model-00002-of-00003.safetensors.* is missing")
    index.rename(tmp_path / "aside")
    expect_refusal(
        folder, errors.MissingShardError, "model-00002-of-00003.safetensors is missing: .* 3 parts"
    )
    (tmp_path / "aside").rename(index)

    second.mkdir()
    expect_refusal(folder, errors.UnreadableError, "is a folder")
    second.rmdir()

    second.write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes())
    expect_refusal(folder, errors.DuplicateTensorError, "is in both .*00001.* and .*00002")

    second.write_bytes(safetensors_bytes({}))
    expect_refusal(
        folder, errors.IndexMismatchError, "places .* in model-00002-of-00003.safetensors, which does not"
    )

    second.write_bytes(gguf_bytes([], [WEIGHT], bytes(32)))
    expect_refusal(folder, errors.NotAModelError, "a GGUF file under the name of a shard")

    second.write_bytes(content)
    open_checkpoint(folder).close()


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "a\\b", "a\0b", 7, None]
)
def test_an_index_that_leads_out_of_its_folder(tmp_path: Path, shard: object) -> None:
    folder = tmp_path / "model"
    write_safetensors(folder / "a.safetensors", {"w": ("F32", np.ones(4, np.float32))})
    write_safetensors(tmp_path / "x.safetensors", {"v": ("F32", np.ones(4, np.float32))})
    index = {"weight_map": {"w": "a.safetensors", "v": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expect_refusal(folder, errors.ShardNameError, "places v in .* not a plain file name")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "\xff"])
def test_an_index_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    expect_refusal(tmp_path, errors.ConfigError, "model.safetensors.index.json .* download it again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"model_type": "llama"', r"is not JSON from line 2, column 22 on; download it again"),
        ("[]", "is not a JSON object"),
        ('"llama"', "is not a JSON object"),
        ("[" * 200_000, "is not JSON that can be read"),
        ("9" * 5_000, "is not JSON that can be read"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    folder = write_llama(tmp_path, tokenizer=None)
    (folder / "config.json").write_text(content)
    expect_refusal(folder, errors.ConfigError, f"config.json {message}")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": 7},
        {"model_type": "llama", "num_hidden_layers": 10**15},
        {"model_type": "llama", "num_hidden_layers": "two", "text_config": 7, "quantization_config": []},
        {"model_type": "llama", "quantization_config": {"quant_method": ["gptq"], "config_groups": [1]}},
        {"model_type": "llama", "quantization_config": {"quant_method": "compressed-tensors"}},
        *(
            {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"g": group}}}
            for group in ([1], {"weights": [1]}, {"weights": {"num_bits": [4], "group_size": "x"}})
        ),
        {"text_config": []},
        {"text_config": {"model_type": 5}},
    ],
)
def test_a_config_of_nonsense_opens_all_the_same(tmp_path: Path, config: dict) -> None:
    folder = write_llama(tmp_path, tokenizer=None)
    (folder / "config.json").write_text(json.dumps(config))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.blocks == 2
        assert len(checkpoint.summary().tensors) == 21


def test_split_gguf_files(tmp_path: Path) -> None:
    files = write_split(tmp_path)
    content = files[1].read_bytes()
    files[1].unlink()
    for path in (files[0], files[2], tmp_path):
        expect_refusal(
            path, errors.MissingShardError, "model-00002-of-00003.gguf is missing: the model has 3 parts"
        )
    files[1].write_bytes(files[0].read_bytes())
    expect_refusal(files[0], errors.IndexMismatchError, r"says that it is part 0 \(from 0\) of 3, not 1 of 3")
    files[1].write_bytes(b"nothing of the kind")
    expect_refusal(files[0], errors.NotAModelError, "is not a model")
    files[1].write_bytes(content.replace(b"blk.0.attn_norm.weight", b"blk.0.attn_nice.weight"))
    open_checkpoint(files[0]).close()
    files[1].write_bytes(content.replace(b"blk.0.attn_norm.weight", b"\0" * 22))
    alone = tmp_path / "alone.gguf"
    files[0].rename(alone)
    expect_refusal(alone, errors.IndexMismatchError, "of 3, not 0 of 1")


def test_split_files_that_promise_more_tensors(tmp_path: Path) -> None:
    for i in range(2):
        pairs = [
            pair("split.no", GGUFValueType.UINT16, struct.pack("<H", i)),
            pair("split.count", GGUFValueType.UINT16, struct.pack("<H", 2)),
            pair("split.tensors.count", GGUFValueType.INT32, struct.pack("<i", 3)),
        ]
        path = tmp_path / f"m-{i + 1:05}-of-00002.gguf"
        path.write_bytes(gguf_bytes(pairs, [info(f"w{i}", (8,), 0, 0)], bytes(32)))
    expect_refusal(path, errors.IndexMismatchError, "promises 3 tensors in all parts, which hold 2")


def test_a_name_that_claims_99999_parts(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-99999.gguf"
    path.write_bytes(gguf_bytes([], [WEIGHT], bytes(32)))
    expect_refusal(path, errors.MissingShardError, "m-00002-of-99999.gguf is missing")
