"""What is tested of every reader of foreign files, by the property tests and the fuzzer alike: `check`.

Whatever the bytes: nothing but a `UserError` is raised; its text is one short line that names the file;
memory stays within a small multiple of the file's size; no time is lost; no file outside of the folder is
opened, and nothing else is reached for.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from engine.api.errors import RecipeError, UserError
from engine.api.model import Role
from engine.api.plan import ExportTensor, Planner
from engine.api.recipe import load_recipe, parse_recipe
from engine.calibration.importance_files import read_importance
from engine.checkpoint import check_finite, open_checkpoint
from engine.tokenizer import load_tokenizer, tokenizer_metadata
from engine.tokenizer.tokenizer import Tokenizer
from tests.fuzz import seeds
from tests.fuzz.mutations import (
    Mutation,
    mutate_archive,
    mutate_bytes,
    mutate_json,
    mutate_safetensors,
)
from tests.fuzz.watch import watched

ROOM = 4 << 20
"""Bytes that a reader may take whatever the file's size: its buffers."""

PATIENCE = 5.0
SECONDS_PER_BYTE = 2e-5
"""Seconds of work that a file may take, traced; a small one takes milliseconds."""

LONGEST = 1000
"""Letters of a sentence, beside those of the file's path."""


class Refusals:
    """Collects the sentences of the errors that a reader is allowed."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.sentences.append(str(error))  # the error itself would keep all that was read


@dataclass(frozen=True, eq=False)
class Reader:
    """`file` is the name of the file in question, `beside` what else lies in its folder.

    `read` is given that file's path. `multiple`: of the file's size in bytes, the memory that it may take.
    """

    name: str
    file: str
    read: Callable[[Path, Refusals], None]
    mutate: Mutation
    beside: Mapping[str, bytes] = field(default_factory=dict)
    multiple: int = 64


def read_model(path: Path, attempt: Refusals) -> None:
    """Everything that is done with a model before it is quantized."""
    with attempt(), open_checkpoint(path) as checkpoint:
        checkpoint.summary().model_dump_json()
        for name in checkpoint.tensors:
            with attempt():
                assert checkpoint.read(name).dtype == np.float32
        with attempt():
            check_finite(checkpoint)
        if checkpoint.kind == "gguf":
            with attempt():
                load_tokenizer(checkpoint).encode("a <s> ab\n")


def _read_folder(path: Path, attempt: Refusals) -> None:
    read_model(path.parent, attempt)


def _read_config(path: Path, attempt: Refusals) -> None:
    """config.json beside plain weights and each kind of quantized ones."""
    for weights in sorted(path.parent.glob("*.safetensors")):
        read_model(weights, attempt)


def _read_pickle(path: Path, attempt: Refusals) -> None:
    """As a model; and what it did to us must not change how the next file is read."""
    read_model(path, attempt)
    with open_checkpoint(path.with_name("good.bin")) as good:
        values = [good.read(name).ravel().tolist() for name in good.tensors]
    assert values == [list(range(8)), [0] * 4], "the next file is read otherwise"


def _read_imatrix(path: Path, attempt: Refusals) -> None:
    with attempt():
        for entry in read_importance(path).entries.values():
            assert np.isfinite(entry.means()).all()


def _read_tokenizer(path: Path, attempt: Refusals) -> None:
    for size in (None, 8):
        with attempt():
            metadata = tokenizer_metadata(path.parent, size, {})
            Tokenizer(metadata, str(path.parent)).encode("a <s> ab\n")


def _read_recipe(path: Path, attempt: Refusals) -> None:
    with attempt():
        recipe = load_recipe(path)
        again = parse_recipe(recipe.to_json(), str(path))
        assert again == recipe
        with suppress(RecipeError):  # a pattern that takes too long; the planner knows no file
            Planner(_outputs()).plan(recipe).model_dump_json()


@cache
def _outputs() -> list[ExportTensor]:
    """Some tensors to plan, one with a name on which patterns can waste time."""
    roles = {
        "attn_q": Role.Q,
        "attn_v": Role.V,
        "ffn_down": Role.DOWN,
        "attn_norm": Role.NORM,
        "a" * 60: Role.Q,
    }
    return [
        ExportTensor(
            name=f"blk.{block}.{name}.weight",
            shape=(64, 256),
            role=role,
            block=block,
            sources=(f"model.layers.{block}.{name}.weight",),
        )
        for name, role in roles.items()
        for block in (0, 3)
    ]


_CONFIG = {"config.json": seeds.as_json(seeds.CONFIG)}
_TOKENIZERS = seeds.SEEDS["tokenizer"]()
_TOKENIZER_CONFIG = {"tokenizer_config.json": seeds.SEEDS["tokenizer_config"]()["whole"]}
_WEIGHTS = {"plain": seeds.PLAIN, "fp8": seeds.FP8, "gptq": seeds.GPTQ, "packed": seeds.PACKED}

READERS = {
    reader.name: reader
    for reader in (
        Reader("safetensors", "model.safetensors", read_model, mutate_safetensors, _CONFIG),
        Reader("gguf", "model.gguf", read_model, mutate_bytes),
        Reader("imatrix", "imatrix.gguf", _read_imatrix, mutate_bytes),
        Reader("index", "model.safetensors.index.json", _read_folder, mutate_json, _CONFIG | seeds.shards()),
        Reader(
            "config",
            "config.json",
            _read_config,
            mutate_json,
            {f"{name}.safetensors": seeds.safetensors(made) for name, made in _WEIGHTS.items()},
        ),
        Reader(
            "pytorch",
            "pytorch_model.bin",
            _read_pickle,
            mutate_archive,
            _CONFIG | {"good.bin": seeds.SEEDS["pytorch"]()["two matrices"]},
            multiple=128,
        ),
        Reader("tokenizer", "tokenizer.json", _read_tokenizer, mutate_json, _TOKENIZER_CONFIG),
        Reader(
            "tokenizer_config",
            "tokenizer_config.json",
            _read_tokenizer,
            mutate_json,
            {"tokenizer.json": _TOKENIZERS["bytewise"]},
        ),
        Reader("sentencepiece", "tokenizer.model", _read_tokenizer, mutate_bytes, _TOKENIZER_CONFIG),
        Reader("recipe", "recipe.json", _read_recipe, mutate_json, multiple=128),
    )
}
"""A further reader needs a line here, and seeds of the same name."""


def mutate(reader: Reader, data: bytes, random: Random) -> bytes:
    """`data` with one to four wounds."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = reader.mutate(data, random)
    return data


@cache
def _folder(reader: Reader) -> Path:
    """A folder of this process with what lies beside the file; a model that nobody should open is outside."""
    outside = Path(tempfile.mkdtemp(prefix="hostile-"))
    weakref.finalize(reader, _remove, outside)
    (outside / "outside.safetensors").write_bytes(seeds.safetensors(seeds.PLAIN))
    folder = outside / "model"
    folder.mkdir()
    for name, content in reader.beside.items():
        (folder / name).write_bytes(content)
    return folder


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
    with suppress(OSError):
        folder.rmdir()


@cache
def _warmed(reader: Reader) -> Path:
    """The folder, after the good files were read: what libraries load and keep is not the file's doing."""
    folder = _folder(reader)
    for content in seeds.SEEDS[reader.name]().values():
        (folder / reader.file).write_bytes(content)
        reader.read(folder / reader.file, Refusals())
    return folder


def run_alone(reader: Reader, data: bytes) -> None:
    """Reads `data` as that reader's file, unwatched."""
    path = _warmed(reader) / reader.file
    path.write_bytes(data)
    reader.read(path, Refusals())


def check(reader: Reader, data: bytes) -> list[str]:
    """Reads `data` as that reader's file and fails if it does what no file may. Why it was refused, if so."""
    folder = _warmed(reader)
    path = folder / reader.file
    path.write_bytes(data)
    attempt = Refusals()
    with watched() as seen:
        reader.read(path, attempt)
    for sentence in attempt.sentences:
        check_sentence(sentence, folder)
    outside = [opened for opened in seen.opened if not opened.resolve().is_relative_to(folder)]
    assert not outside, f"opens {outside}"
    assert not seen.forbidden, f"reaches for {seen.forbidden}"
    allowed = ROOM + reader.multiple * len(data)
    assert seen.peak <= allowed, f"takes {seen.peak:,} bytes for a file of {len(data):,}"
    patience = PATIENCE + SECONDS_PER_BYTE * len(data)
    assert seen.seconds < patience, f"takes {seen.seconds:.1f} s for a file of {len(data):,} bytes"
    return attempt.sentences


def check_sentence(text: str, folder: Path) -> None:
    """One line that can be shown, names the file or its folder, and has an end."""
    assert text.isprintable(), f"not a line: {text!a}"
    assert str(folder) in text, f"names no file: {text}"
    assert len(text) - text.count(str(folder)) * len(str(folder)) <= LONGEST, f"too long: {text}"
    assert text.endswith((".", "?")), f"not a sentence: {text}"
