"""`bitwright stats --tensor`: every figure of every channel and group, against NumPy's own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer

from engine.api.errors import CheckpointError
from engine.api.recipe import Choice, Recipe
from engine.api.statistics import PERCENTS
from engine.checkpoint import open_checkpoint
from engine.cli import app
from engine.quantization_errors import quantized
from tests.tiny import llama_config, llama_tensors, write_folder

DOWN = "model.layers.1.mlp.down_proj.weight"
GROUP = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    config = llama_config(hidden_size=64, intermediate_size=256)
    tensors = llama_tensors(config)
    tensors[DOWN][5, 40], tensors[DOWN][6, :32] = 7.0, 0.0
    return write_folder(tmp_path_factory.mktemp("channels") / "model", config, tensors, tokenizer=None)


def asked(model: Path, out: Path, *options: str) -> list[dict[str, str]]:
    app(["stats", str(model), "--tensor", DOWN, "--out", str(out), *options], standalone_mode=False)
    return list(csv.DictReader(out.read_text().splitlines()))


def divided(matrix: np.ndarray, scope: str) -> np.ndarray:
    """[channels or groups, weights of each]"""
    return {"output": matrix, "input": matrix.T, "group": matrix.reshape(-1, GROUP)}[scope]


@pytest.mark.parametrize("scope", ["output", "input", "group"])
def test_all_figures_are_numpys_own(model, tmp_path, scope):
    recipe = Recipe(default=Choice(format="Q4_0"))
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    rows = asked(model, tmp_path / "t.csv", "--scope", scope, "--recipe", str(tmp_path / "recipe.json"))
    with open_checkpoint(model) as checkpoint:
        weights = checkpoint.read(DOWN).astype(float)
        made = quantized(checkpoint, recipe, DOWN)
        values, codes = made.values(0, 64).astype(float), made.codes(0, 64)
    far = np.abs(weights - weights.mean()) > 6 * weights.std()
    there, lost = divided(weights**2, scope).sum(axis=1), divided((values - weights) ** 2, scope).sum(axis=1)
    x, y = divided(weights, scope), divided(values, scope)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = {
            "min": x.min(axis=1),
            "absmax": np.abs(x).max(axis=1),
            "mean": x.mean(axis=1),
            "std": x.std(axis=1),
            "zeros": (x == 0).mean(axis=1),
            **{f"p{p:g}": np.percentile(x, p, axis=1) for p in PERCENTS},
            "beyond_6_sigma": divided(far, scope).sum(axis=1),
            "large": (np.abs(x) >= 6).sum(axis=1),
            "squared_error": np.where(there > 0, lost / there, 0),
            "cosine": np.where(norms > 0, (x * y).sum(axis=1) / norms, 1.0),
            "saturation": np.isin(divided(codes, scope), [codes.min(), codes.max()]).mean(axis=1),
            "levels_used": [len(set(line)) for line in divided(codes, scope).tolist()],
        }
    assert len(rows) == len(x)
    for name, figures in expected.items():
        found = np.array([float(row[name]) for row in rows])
        np.testing.assert_allclose(found, figures, rtol=2e-5, atol=1e-7, err_msg=name)
    snr = [(row["snr_db"], float(row["squared_error"])) for row in rows]
    assert all(
        float(told) == pytest.approx(-10 * np.log10(error)) if error else told == "" for told, error in snr
    )
    assert sum(int(row["large"]) for row in rows) == 1
    if scope == "group":
        assert (rows[9]["output_channel"], rows[9]["group"]) == ("1", "1")
        assert rows[6 * 8]["levels_used"] == "1"
    else:
        assert [row[f"{scope}_channel"] for row in rows] == [str(place) for place in range(len(x))]


def test_input_channels_are_the_default_and_json_says_what_it_is_about(model, tmp_path, capsys):
    app(["stats", str(model), "--tensor", "blk.1.ffn_down", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["scope"], len(told["channels"])) == ("input", 256)
    assert told["channels"][40]["absmax"] == 7.0
    assert "squared_error" not in told["channels"][0]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--scope", "input"], typer.BadParameter),
        (["--tensor", DOWN, "--scope", "row"], typer.BadParameter),
        (["--tensor", "nothing"], CheckpointError),
    ],
)
def test_what_cannot_be_asked_is_refused(model, options, error):
    with pytest.raises(error):
        app(["stats", str(model), *options], standalone_mode=False)
