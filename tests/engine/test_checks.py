"""What is checked before a run: each failure says what is wrong, where, and what to do."""

import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from engine import estimate
from engine.api.jobs import Check, Measure, QuantizeRequest, Stopped
from engine.api.progress import Progress
from engine.api.recipe import Choice, Recipe, Rule
from engine.checks import check
from engine.jobs.folder import Job
from engine.quantize import quantize
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.tiny import write_llama

RECIPE = Recipe(default=Choice(format="Q4_0"))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("checks") / "model")


def request_for(model: Path, output: Path, **changes: object) -> QuantizeRequest:
    fields = {"model": str(model), "output": str(output), "recipe": RECIPE, **changes}
    return QuantizeRequest.model_validate(fields)


def failures(request: QuantizeRequest) -> list[tuple[str, str]]:
    return [(found.name, found.message) for found in check(request) if found.passed is False]


def refused(request: QuantizeRequest, name: str) -> str:
    """The sentence of the one check that fails, which must be `name`."""
    found = failures(request)
    assert [failure for failure, _ in found] == [name], found
    return found[0][1]


def test_all_is_well():
    request = request_for(SAMPLE_MODEL, Path("o.gguf"), measure=Measure(text=str(EVALUATION_TEXT)))
    imatrix = RECIPE.model_copy(update={"imatrix": str(SAMPLE_MODEL / "imatrix.gguf")})
    found = check(request.model_copy(update={"recipe": imatrix}))
    assert [one.name for one in found] == [
        "architecture", "tokenizer", "importance matrix", "recipe", "output", "disk", "evaluation text",
        "memory", "time", "weights",
    ]  # fmt: skip
    assert [one.passed for one in found] == [True] * 9 + [None]
    said = {one.name: one.message for one in found}
    assert all(said.values())
    assert "MB of" in said["disk"]
    assert re.fullmatch(r"about \d+ MB of [\d.]+ [MG]B available", said["memory"])
    assert re.fullmatch(r"about .+: start .*measure .*", said["time"])


def test_models_that_cannot_be_exported(tmp_path):
    out = tmp_path / "o.gguf"
    strange = write_llama(tmp_path / "strange", config={"model_type": "martian", "architectures": ["X"]})
    assert "martian" in refused(request_for(strange, out), "architecture")
    mute = write_llama(tmp_path / "mute", tokenizer=None)
    assert "tokenizer" in refused(request_for(mute, out), "tokenizer")
    assert str(tmp_path / "absent") in refused(request_for(tmp_path / "absent", out), "model")


def test_a_recipe_that_does_not_do_all_it_says_still_runs(model, tmp_path):
    recipe = Recipe(rules=[Rule(match="zzz", format="Q8_0")], default=Choice(format="Q6_K"))
    found = check(request_for(model, tmp_path / "o.gguf", recipe=recipe))
    said = [one for one in found if one.name == "recipe"]
    assert any("rule 1 ('zzz') matches no tensor" in one.message for one in said)
    assert any("instead of Q6_K" in one.message for one in said)
    assert all(one.passed for one in said)


def test_outputs(model, tmp_path):
    there = tmp_path / "there.gguf"
    there.write_bytes(b"x")
    assert "or replace what is there (--overwrite)." in refused(request_for(model, there), "output")
    replacing = check(request_for(model, there, overwrite=True))
    assert Check(name="output", passed=True, message=f"{there} will be replaced") in replacing
    assert "is a folder" in refused(request_for(model, tmp_path), "output")
    assert "make it first" in refused(request_for(model, tmp_path / "absent" / "o.gguf"), "output")
    weights = model / "model.safetensors"
    assert "is the input itself" in refused(request_for(model, weights, overwrite=True), "output")
    text = tmp_path / "t.txt"
    text.write_text("word " * 5000)
    measured = request_for(model, text, overwrite=True, measure=Measure(text=str(text)))
    assert "is the input itself" in refused(measured, "output")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(model, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert "no permission" in refused(request_for(model, folder / "o.gguf"), "output")


def test_a_full_disk(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1234))
    said = refused(request_for(model, tmp_path / "o.gguf"), "disk")
    assert "1,234 free" in said
    assert "bytes" in said


def test_a_limit_of_memory_that_cannot_be_kept(model, tmp_path):
    said = refused(request_for(model, tmp_path / "o.gguf", memory_limit=340_000_000), "memory")
    assert "the limit is 340 MB; raise the limit" in said


def test_a_machine_without_memory(model, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "available_memory", lambda: 123_000_000)
    assert "the machine has 123 MB available" in refused(request_for(model, tmp_path / "o.gguf"), "memory")


def test_a_time_that_is_not_known(model, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "are_compiled", lambda formats: False)
    said = [one for one in check(request_for(model, tmp_path / "o.gguf")) if one.name == "time"]
    assert [one.passed for one in said] == [None]
    assert "before the encoders are compiled" in said[0].message


def test_other_jobs_on_the_output(model, tmp_path):
    out = tmp_path / "o.gguf"

    def stop(event: Progress) -> None:
        if event.stage == "quantize" and event.done > event.total / 2:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as stopped:
        quantize(request_for(model, out), stop)
    said = refused(request_for(model, out), "output")
    assert stopped.value.job in said
    assert failures(request_for(model, out, overwrite=True)) == []
    rival = Job.find(stopped.value.job)
    rival.set_state("running")
    rival.lock()
    try:
        assert "is writing it" in refused(request_for(model, out, overwrite=True), "output")
    finally:
        rival.unlock()


def test_importance_matrices(model, tmp_path):
    def with_matrix(path: Path) -> QuantizeRequest:
        return request_for(
            model, tmp_path / "o.gguf", recipe=RECIPE.model_copy(update={"imatrix": str(path)})
        )

    assert "no such importance matrix" in refused(with_matrix(tmp_path / "absent.gguf"), "importance matrix")
    assert "another" in refused(with_matrix(SAMPLE_MODEL / "imatrix.gguf"), "importance matrix")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "Cannot read"), (b"", "is empty"), (b"\xff\xff", "UTF-8"), (b"too short", "take a longer text")],
)
def test_evaluation_texts(model, tmp_path, content, said):
    text = tmp_path / "t.txt"
    if content is not None:
        text.write_bytes(content)
    request = request_for(model, tmp_path / "o.gguf", measure=Measure(text=str(text)))
    assert said in refused(request, "evaluation text")


@pytest.mark.parametrize(("protocol", "enough"), [("llama.cpp", 512), ("gptq", 256)])
def test_a_text_of_one_window_is_long_enough(tmp_path, protocol, enough):
    """The window is the model's context for "gptq": 256 tokens here; a newline is a token of its own."""
    mute = write_llama(tmp_path / "model")
    text = tmp_path / "t.txt"
    request = request_for(mute, tmp_path / "o.gguf", measure=Measure(text=str(text), protocol=protocol))
    bos = protocol == "llama.cpp"
    text.write_text("\n" * (enough - bos) + "\n" * bos)  # that protocol drops the last newline, and adds BOS
    assert failures(request) == []
    text.write_text("\n" * (enough - 1 - bos) + "\n" * bos)
    assert f"has {enough - 1:,} tokens" in refused(request, "evaluation text")
