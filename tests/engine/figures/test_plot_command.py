"""`bitwright plot` as a user types it, in this process."""

import csv
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from engine.api.errors import CheckpointError, FigureError, OutputError, RecipeError, UserError
from engine.api.figures import Axis, Figure
from engine.api.jobs import QuantizeRequest
from engine.api.presets import PRESETS
from engine.api.recipe import Choice, Recipe
from engine.api.views import HistogramOf, View
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.cli import app
from engine.figures import Drawn
from engine.quantization_errors import measure_errors, quantized
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from tests.tiny import write_llama

DOWN = "model.layers.1.mlp.down_proj.weight"
WORST = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = write_llama(tmp_path_factory.mktemp("plot") / "model", tokenizer=None)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[DOWN][3, WORST] = -7.5
    save_file(tensors, file)
    return folder


def plot(model: Path, *arguments: object) -> None:
    app(["plot", str(model), *map(str, arguments)], standalone_mode=False)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["histogram", "outliers", "error", "picture"])
def test_every_kind_is_drawn(model, tmp_path, kind, capsys):
    for ending in ("png", "svg"):
        out = tmp_path / f"plot.{ending}"
        plot(model, "--kind", kind, "--tensor", "blk.1.ffn_down", "--out", out)
        assert capsys.readouterr().out.startswith(f"{out}: ")
        assert out.read_bytes().startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"plot.png", "plot.svg"}


def test_outliers_name_the_channel(model, tmp_path):
    for number, asked in enumerate((["--tensor", DOWN], ["--role", "ffn_down"], [])):
        out = tmp_path / f"{number}.csv"
        plot(model, "--kind", "outliers", "--metric", "ratio", *asked, "--out", out)
        rows = table(out)
        assert len(rows) == 2 * 160
        worst = max(rows, key=lambda row: float(row["abs-max over the median channel's"]))
        assert (worst["block"], worst["input channel"]) == ("1", str(WORST))


def test_errors_are_those_of_q4_k_m_where_nothing_else_is_said(model, tmp_path):
    with open_checkpoint(model) as checkpoint:
        for number, (preset, asked) in enumerate((("Q4_K_M", []), ("Q2_K", ["--preset", "q2_k"]))):
            out = tmp_path / f"{number}.csv"
            plot(model, "--kind", "error", "--tensor", DOWN, *asked, "--out", out)
            made = quantized(checkpoint, recipe_for_preset(checkpoint, preset), DOWN)
            found = [float(row["squared error over the mean"]) for row in table(out)]
            np.testing.assert_array_equal(found, measure_errors(made).by_input)
        out = tmp_path / "role.csv"
        plot(model, "--kind", "outliers", "--metric", "error", "--preset", "Q2_K", "--out", out)
        lost = [float(row["squared error over the mean"]) for row in table(out) if row["block"] == "1"]
        np.testing.assert_allclose(lost, measure_errors(made).by_input, rtol=1e-6)
    assert {"Q4_K_M", "Q2_K"} <= {*PRESETS}


def test_a_recipe_of_ones_own(model, tmp_path):
    recipe = tmp_path / "mine.json"
    recipe.write_text('{"default": {"format": "Q8_0"}}')
    asked = ("--tensor", DOWN, "--recipe", recipe)
    out = tmp_path / "plot.csv"
    plot(model, "--kind", "histogram", "--scope", "group", "--index", 319, *asked, "--out", out)
    assert {row["series"] for row in table(out)} >= {"original", "quantized (Q8_0)", "50 %"}
    plot(model, "--kind", "picture", "--what", "code", *asked, "--out", out, "--overwrite")
    codes = [int(row["code"]) for row in table(out)]
    assert len(codes) == 64 * 160
    assert (min(codes), max(codes)) == (-127, 127)
    drawings = [tmp_path / "log.svg", tmp_path / "linear.svg"]
    for drawing, option in zip(drawings, ([], ["--linear"]), strict=True):
        plot(model, "--kind", "histogram", *option, *asked, "--out", drawing)
    assert drawings[0].read_text() != drawings[1].read_text()
    plot(model, "--kind", "histogram", "--log", *asked, "--out", drawings[0], "--overwrite")
    assert f">{DOWN} · weights · Q8_0<" in drawings[0].read_text()
    assert ">model<" in drawings[0].read_text(), "the model's name is in the title"


def test_a_quantized_source_is_warned_of_and_known_by_other_names(tmp_path, capsys):
    recipe = Recipe(default=Choice(format="Q8_0"))
    source, out = tmp_path / "q8.gguf", tmp_path / "a.csv"
    model = str(write_llama(tmp_path / "model"))
    quantize(QuantizeRequest(model=model, output=str(source), recipe=recipe))
    plot(source, "--kind", "error", "--tensor", "blk.1.ffn_down", "--preset", "Q4_0", "--out", out)
    assert "quantized" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"did you mean blk\.1\.ffn_down\.weight\?"):
        plot(source, "--kind", "error", "--tensor", DOWN, "--out", tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--kind", "histogram", "--out", "a.png"], FigureError, "Say what to draw with --tensor"),
        (["--kind", "outliers", "--out", "a.jpg"], OutputError, r"a.jpg: the name of a plot ends with"),
        (["--kind", "error", "--tensor", "nix", "--out", "a.jpg"], OutputError, "the name of a plot"),
        (
            ["--kind", "error", "--tensor", "blk.1.fn_down", "--out", "a.png"],
            CheckpointError,
            "did you mean blk.1",
        ),
        (["--kind", "outliers", "--role", "nix", "--out", "a.png"], FigureError, "has no matrices nix"),
        (["--kind", "outliers", "--source", "activations", "--out", "a.png"], FigureError, "--activations"),
        (
            ["--kind", "error", "--tensor", DOWN, "--scope", "tensor", "--out", "a.png"],
            FigureError,
            "--scope input",
        ),
        (
            ["--kind", "error", "--tensor", DOWN, "--preset", "Q4", "--recipe", "x", "--out", "a.png"],
            RecipeError,
            "not both",
        ),
        (["--kind", "outliers", "--out", "there.png"], OutputError, "exists already"),
        *(
            ([*options.split(), "--tensor", DOWN, "--out", "a.png"], FigureError, said)
            for options, said in (
                ("--kind histogram --index 3", "say which with --scope"),
                ("--kind error --index 3", "--index is for --kind histogram"),
                ("--kind histogram --metric absmax", "--metric is for --kind outliers"),
                ("--kind histogram --what value", "--what is for --kind picture"),
                ("--kind picture --scope input", "--scope is for --kind histogram and error"),
                ("--kind histogram --activations a.activations", "is for --source activations"),
                ("--kind outliers --role ffn_up", "leave out --role"),
                ("--kind outliers --preset Q4_0", "add --metric error"),
                ("--kind picture --preset Q4_0", "for --what error and code"),
                (
                    "--kind histogram --source activations --activations a.activations --preset Q4_0",
                    "Activations are not quantized",
                ),
            )
        ),
        (["--kind", "outliers", "--out", "none/a.png"], OutputError, "does not exist"),
    ],
)
def test_refusals_leave_nothing_behind(model, tmp_path, monkeypatch, arguments, error, said):
    monkeypatch.chdir(tmp_path)
    Path("there.png").write_text("mine")
    with pytest.raises(error, match=said) as raised:
        plot(model, *arguments)
    assert isinstance(raised.value, UserError)
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
    assert Path("there.png").read_text() == "mine"


def test_activations_of_what_leaves_a_block(model, tmp_path, monkeypatch):
    """It is no tensor of the model."""
    asked: list[View] = []
    figure = Figure(title="seen", x=Axis(name="x"), y=Axis(name="y"), series=[])

    def seen(checkpoint: Checkpoint, view: View) -> list[Drawn]:
        asked.append(view)
        return [Drawn(figure, None, 1, 1, last=True)]

    monkeypatch.setattr("engine.figures.figures", seen)
    monkeypatch.setattr("engine.plot_command._about", lambda model, activations: "")
    of = ("--source", "activations", "--activations", tmp_path / "a", "--out", tmp_path / "a.csv")
    plot(model, "--kind", "histogram", "--tensor", "blk.0.output", *of)
    assert isinstance(asked[0], HistogramOf)
    assert asked[0].tensor == "blk.0.output"
