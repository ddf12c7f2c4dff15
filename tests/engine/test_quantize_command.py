"""`bitwright quantize` and `bitwright presets` as a user types them, in this process."""

import json
from pathlib import Path

import pytest

from engine.api.errors import UserError
from engine.api.preset_sizes import NAMES
from engine.checkpoint import open_checkpoint
from engine.cli import app
from engine.preparation import prepare
from engine.recipes import recipe_for_preset, with_importance
from resources import SAMPLE_MODEL

IMATRIX = SAMPLE_MODEL / "imatrix.gguf"


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def bitwright(capsys, *arguments: object) -> str:
    """What it says on stdout."""
    app([str(argument) for argument in arguments], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--preset", "Q9"], "Unknown preset"),
        (["--preset", "Q8_0", "--out", "there.gguf"], "exists already"),
        (["--preset", "Q8_0", "--imatrix", "there.gguf"], "is not an importance matrix"),
        (["--preset", "Q8_0", "--imatrix", "absent.dat"], "there is no such importance matrix"),
        (["--preset", "Q8_0", "--tensor-type", "down=Q9"], "unknown format"),
        (["--preset", "Q8_0", "--output-tensor-type", "Q9"], "unknown format"),
        (["--preset", "Q8_0", "--metadata", "nmae=x"], "nearest: general.name"),
        (["--preset", "Q8_0", "--out", "o.safetensors"], "another kind of file"),
    ],
)
def test_what_needs_no_libraries_is_refused_before_they_load(tmp_path, monkeypatch, capsys, asked, said):
    monkeypatch.chdir(tmp_path)
    Path("there.gguf").write_text("mine")
    for loading in ("engine.recipes.export_tensors", "engine.preparation.plan_export"):
        monkeypatch.setattr(loading, lambda *_: pytest.fail("transformers is loaded by now"))
    out = [] if "--out" in asked else ["--out", "o.gguf"]
    with pytest.raises(UserError, match=said):
        bitwright(capsys, "quantize", SAMPLE_MODEL, *asked, *out)


def test_presets_are_listed_with_their_sizes(capsys):
    found = json.loads(bitwright(capsys, "presets", SAMPLE_MODEL, "--imatrix", IMATRIX, "--json"))
    assert [one["preset"] for one in found] == list(NAMES)
    listed = {one["preset"]: (one["bytes"], one["bpw"]) for one in found}
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        for name in ("Q4_K_M", "IQ2_XXS", "COPY"):
            recipe = recipe_for_preset(checkpoint, name, has_importance=True)
            prepared = prepare(checkpoint, with_importance(recipe, IMATRIX))
            assert listed[name] == (prepared.size, prepared.plan.bits_per_weight)
    shown = [line.split() for line in bitwright(capsys, "presets", SAMPLE_MODEL).splitlines()]
    assert ["COPY", "29.5", "MB", "29,509,024", "16.01", "every", "tensor"] in [line[:7] for line in shown]
    (refused,) = [" ".join(line) for line in shown if line[:1] == ["MXFP4_MOE"]]
    assert "is for mixtures of experts" in refused
