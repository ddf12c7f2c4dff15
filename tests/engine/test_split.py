"""An output in several files: read back as one, resumed, never half published."""

import errno
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.api.errors import OutputError
from engine.api.jobs import QuantizeRequest, QuantizeResult
from engine.api.lm_studio import lm_studio_path
from engine.api.outputs import part_path, partials_of
from engine.checkpoint import open_checkpoint
from engine.checks import check
from engine.earlier_outputs import about_earlier, give_way
from engine.jobs.cleaning import remove_jobs
from engine.jobs.folder import list_jobs
from engine.jobs.partial import PartialFile
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset, with_options
from engine.resume import resume
from resources import SAMPLE_MODEL
from tests.peers.llama import log_probabilities

MOST = 4_000_000


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def request_for(output: Path, most: int | None = MOST, **changes) -> QuantizeRequest:
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        recipe = with_options(recipe_for_preset(checkpoint, "Q8_0"), split_max_size=most)
    recipe = recipe.model_copy(update={"effort": "fast"})
    return QuantizeRequest(model=str(SAMPLE_MODEL), output=str(output), recipe=recipe, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of each tensor of the undivided file."""
    output = tmp_path_factory.mktemp("whole") / "w.gguf"
    quantize(request_for(output, most=None))
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(output).tensors}


def parts_of(result: QuantizeResult) -> list[gguf.GGUFReader]:
    return [gguf.GGUFReader(file) for file in result.files]


def test_names_sizes_metadata_and_tensors(whole, tmp_path):
    result = quantize(request_for(tmp_path / "m.gguf"))
    files = [Path(file) for file in result.files]
    assert [file.name for file in files] == [f"m-{i + 1:05}-of-00005.gguf" for i in range(5)]
    assert result.output == str(files[0])
    assert result.bytes == sum(file.stat().st_size for file in files)
    assert all(file.stat().st_size <= MOST for file in files)
    readers = parts_of(result)
    found = {tensor.name: tensor.data.tobytes() for reader in readers for tensor in reader.tensors}
    assert found == whole
    for number, reader in enumerate(readers):
        stated = {key: reader.fields[key].contents() for key in reader.fields if key.startswith("split.")}
        assert stated == {"split.no": number, "split.count": 5, "split.tensors.count": len(whole)}
    assert "tokenizer.ggml.tokens" in readers[0].fields
    assert not any("tokenizer.ggml.tokens" in reader.fields for reader in readers[1:])
    assert sorted(path.name for path in tmp_path.glob("*.gguf*")) == [file.name for file in files]
    assert list_jobs()[-1].output == result.output


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def said_before(request: QuantizeRequest) -> list[str]:
    return [one.message for one in check(request) if one.name == "output" and one.warning]


TWO = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}


@pytest.mark.parametrize(
    ("before", "now", "old"),
    [(9_000_000, MOST, TWO), (9_000_000, None, TWO), (None, 9_000_000, {"m.gguf"})],
    ids=["other parts", "one file now", "one file before"],
)
def test_an_earlier_output_of_ours_gives_way(whole, tmp_path, before, now, old):
    quantize(request_for(tmp_path / "m.gguf", most=before))
    assert names(tmp_path) == old
    told = ", ".join(sorted(old))
    beside = f"another output of this name lies beside it ({told}): runtimes may take the wrong one"
    assert said_before(request_for(tmp_path / "m.gguf", most=now)) == [beside]
    request = request_for(tmp_path / "m.gguf", most=now, overwrite=True)
    going = f"{told} of the earlier output of this name will be removed when the new one stands"
    assert said_before(request) == [going]
    first = tmp_path / ("m.gguf" if now is None else f"m-00001-of-0000{2 if before is None else 5}.gguf")
    assert f"{first} can be written" in [one.message for one in check(request)]
    replaced = quantize(request)
    assert f"removed what was left of the earlier output of this name: {told}" in replaced.warnings
    assert names(tmp_path) == {Path(file).name for file in replaced.files}


def test_files_that_no_job_has_written_stay(whole, tmp_path):
    """Also one that has taken the place of a job's."""
    quantize(request_for(tmp_path / "m.gguf", most=9_000_000))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF, from elsewhere")
    others = {"m-00001-of-00003.gguf", "m.gguf", "mm-00001-of-00002.gguf", "m-00001-of-00002.gguf.txt"}
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    result = quantize(request_for(tmp_path / "m.gguf", overwrite=True))
    assert result.warnings == [
        "removed what was left of the earlier output of this name: m-00001-of-00002.gguf",
        "another output of this name lies beside it (m-00001-of-00003.gguf, m-00002-of-00002.gguf, m.gguf): "
        "runtimes may take the wrong one",
    ]
    made = {Path(file).name for file in result.files}
    assert names(tmp_path) == others | {"m-00002-of-00002.gguf"} | made


def test_what_cannot_be_removed_is_said_and_the_job_is_done(whole, tmp_path, monkeypatch):
    quantize(request_for(tmp_path / "m.gguf", most=9_000_000))
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name.startswith("m-00001-of-00002"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    result = quantize(request_for(tmp_path / "m.gguf", overwrite=True))
    assert any("m-00001-of-00002.gguf of the earlier output" in said for said in result.warnings)
    assert (
        "removed what was left of the earlier output of this name: m-00002-of-00002.gguf" in result.warnings
    )
    assert list_jobs()[-1].state == "done"
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        prepared = prepare(checkpoint, request_for(tmp_path / "m.gguf").recipe)
    monkeypatch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "no")))
    for look in (about_earlier, give_way):
        (said,) = look(prepared, tmp_path / "m.gguf", [], overwrite=True)
        assert said == "whether another output of this name lies beside it cannot be seen (no)"


def test_the_source_is_never_taken_for_an_earlier_output(whole, tmp_path):
    source = quantize(request_for(tmp_path / "m.gguf", most=9_000_000))
    assert len(source.files) == 2
    again = request_for(tmp_path / "m.gguf", overwrite=True).model_copy(update={"model": source.output})
    assert len(quantize(again).files) == 5
    assert all(Path(file).exists() for file in source.files)


def test_names_that_say_something_else(whole, tmp_path):
    with pytest.raises(OutputError, match=r"another kind of file; a GGUF file is written, such as m\.gguf"):
        quantize(request_for(tmp_path / "m.safetensors"))
    (said,) = [c.message for c in check(request_for(tmp_path / "noext", most=None)) if c.warning]
    assert said == "noext does not end in .gguf: programs that look for models may pass it over"


def test_folders_are_made_when_the_job_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".lmstudio").mkdir()
    output = lm_studio_path("me", "Sample", "Q8_0")
    request = request_for(output, most=None)
    with pytest.raises(OutputError, match="does not exist; make it first"):
        quantize(request)
    made = request.model_copy(update={"make_folders": True})
    assert [check.passed for check in check(made) if check.name in ("output", "disk")] == [True, True]
    assert not output.parent.exists(), "a check makes nothing"
    assert quantize(made).output == str(output)
    assert output.is_file()


def test_llama_cpp_reads_it_as_one(whole, tmp_path):
    result = quantize(request_for(tmp_path / "m.gguf"))
    one = quantize(request_for(tmp_path / "one.gguf", most=None))
    prompt = list(range(5, 30))
    split, undivided = (log_probabilities(Path(made.output), prompt) for made in (result, one))
    assert np.array_equal(split, undivided)


def test_our_reader_reads_it_as_one_and_measures_it(whole, tmp_path):
    result = quantize(request_for(tmp_path / "m.gguf"))
    with open_checkpoint(Path(result.output)) as checkpoint:
        assert set(checkpoint.tensors) == set(whole)
        assert not any(key.startswith("split.") for key in checkpoint.metadata)


@pytest.mark.parametrize("published", [0, 2])
def test_broken_off_while_names_are_given(whole, tmp_path, monkeypatch, published):
    real, count = PartialFile.publish, 0

    def publish(self, *, overwrite):
        nonlocal count
        if count == published:
            raise RuntimeError("killed")
        count += 1
        real(self, overwrite=overwrite)

    monkeypatch.setattr(PartialFile, "publish", publish)
    with pytest.raises(RuntimeError, match="killed"):
        quantize(request_for(tmp_path / "m.gguf"))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert len(partials_of(tmp_path / "m.gguf")) == 5 - published
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.gguf")}
    assert len(kept) == published
    result = resume(list_jobs()[-1].id)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "not written again"
    found = {t.name: t.data.tobytes() for reader in parts_of(result) for t in reader.tensors}
    assert found == whole
    assert partials_of(tmp_path / "m.gguf") == []


def test_no_part_replaces_a_file_unasked(tmp_path):
    taken = part_path(tmp_path / "m.gguf", 3, 5)
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"m-00004-of-00005\.gguf: exists already"):
        quantize(request_for(tmp_path / "m.gguf"))
    assert taken.read_bytes() == b"mine"


def test_removing_the_job_removes_what_it_has_written(tmp_path, monkeypatch):
    def publish(self, *, overwrite):
        raise RuntimeError("killed")

    monkeypatch.setattr(PartialFile, "publish", publish)
    with pytest.raises(RuntimeError):
        quantize(request_for(tmp_path / "m.gguf"))
    (tmp_path / "m-00001-of-00005.gguf.mine").write_text("another's")
    remove_jobs([list_jobs()[-1].id])
    assert [path.name for path in tmp_path.glob("m*")] == ["m-00001-of-00005.gguf.mine"]


def test_a_tensor_beyond_the_size_is_said(tmp_path):
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        prepared = prepare(checkpoint, request_for(tmp_path / "m.gguf", most=1_000_000).recipe)
    assert any("are larger than 1 MB" in warning for warning in prepared.plan.warnings)
