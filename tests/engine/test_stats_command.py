"""`bitwright stats` as a user types it, in this process."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from engine import statistics_table
from engine.activations import read_activations
from engine.api.errors import CalibrationError, CheckpointError, OutputError, RecipeError
from engine.api.recipe import Choice, Recipe, Rule
from engine.api.statistics import PERCENTS
from engine.checkpoint import open_checkpoint
from engine.cli import app
from engine.quantization_errors import measure_errors, quantized
from engine.recipes import recipe_for_preset
from engine.weight_statistics import all_statistics
from tests.tiny import TEXT, llama_config, llama_tensors, write_folder, write_llama

DOWN = "model.layers.1.mlp.down_proj.weight"
COLUMNS = (
    "tensor,canonical,role,block,shape,dtype,count,min,max,mean,std,absmax,kurtosis,zeros,"
    "p0.1,p1,p5,p25,p50,p75,p95,p99,p99.9,beyond_6_sigma,large,outlier_channels,outlier_ratio"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """With two outliers in one tensor, and one that holds whole numbers."""
    folder = write_llama(tmp_path_factory.mktemp("stats") / "model", tokenizer=None)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][3, [9, 40]] = torch.tensor([4.0, -7.5])
    save_file(tensors | {"model.positions": torch.arange(7)}, file)
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    """The same without those whole numbers, which no GGUF file of a Llama has."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    tensors = load_file(shutil.copytree(model, folder) / "model.safetensors")
    del tensors["model.positions"]
    save_file(tensors, folder / "model.safetensors")
    return folder


def bitwright(capsys, *arguments: object) -> tuple[str, str]:
    """What it says on stdout and on stderr."""
    app([str(argument) for argument in arguments], standalone_mode=False)
    said = capsys.readouterr()
    return said.out, said.err


def test_the_same_rows_in_every_kind_of_file(model, tmp_path, capsys):
    for ending in ("csv", "json", "parquet"):
        told, warned = bitwright(capsys, "stats", model, "--out", tmp_path / f"stats.{ending}")
        assert "statistics of 21 tensors" in told
        assert "left out: model.positions of" in warned
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stats.csv", "stats.json", "stats.parquet"]
    told = json.loads((tmp_path / "stats.json").read_text())
    rows = told["tensors"]
    assert (told["model"], list(told["left_out"])) == (str(model), ["model.positions"])
    assert ",".join(rows[0]) == COLUMNS
    assert parquet.read_table(tmp_path / "stats.parquet").to_pylist() == rows
    with (tmp_path / "stats.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert len(texts) == len(rows) == 21
    for text, row in zip(texts, rows, strict=True):
        for column in ("min", "mean", "p0.1", "kurtosis", "outlier_ratio"):
            assert float(text[column]) == row[column]
        assert text["shape"] == "x".join(map(str, row["shape"]))
        assert text["outlier_channels"] == ";".join(map(str, row["outlier_channels"]))
        assert text["block"] == ("" if row["block"] is None else str(row["block"]))
    planted = next(row for row in rows if row["canonical"] == "blk.1.ffn_down.weight")
    assert (planted["outlier_channels"], planted["absmax"], planted["large"]) == ([40, 9], 7.5, 1)
    assert [row["tensor"] for row in rows if row["outlier_channels"]] == [planted["tensor"]]


def test_a_row_says_what_the_engine_found(model):
    with open_checkpoint(model) as checkpoint:
        found, _ = all_statistics(checkpoint, threads=1)
    row = statistics_table.row_of(found[3])
    assert [row[f"p{percent:g}"] for percent in PERCENTS] == found[3].percentiles
    assert (row["beyond_6_sigma"], row["count"]) == (found[3].beyond_sigmas, found[3].count)


def test_as_json_and_as_a_table(model, capsys):
    told, _ = bitwright(capsys, "stats", model, "--json", "--threads", 1)
    assert len(json.loads(told)["tensors"]) == 21
    told, warned = bitwright(capsys, "stats", model)
    first = next(line for line in told.splitlines() if "model." in line)
    assert "model.layers.1.mlp.down_proj.weight" in first
    assert "40, 9" in first
    assert "21 tensors, " in told
    assert "the 20 with the worst input channels are shown" in told
    assert "model.positions" in warned


ERRORS = "format,method,squared_error,mean_squared_error,snr_db,cosine,saturation,levels_used,levels,"
ERRORS += "worst_channel,worst_channel_error"


def test_what_a_recipe_loses_is_in_further_columns(tmp_path, capsys):
    """A tied output that is stored all the same is not in the GGUF file."""
    config = llama_config(tie_word_embeddings=True)
    tensors = llama_tensors(config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    model = write_folder(tmp_path / "model", config, tensors, tokenizer=None)
    recipe = Recipe(default=Choice(format="Q4_0"), rules=[Rule(match="ffn_down", format="F16")])
    (tmp_path / "mine.json").write_text(recipe.model_dump_json())
    for ending in ("csv", "json", "parquet"):
        out = tmp_path / f"errors.{ending}"
        _, warned = bitwright(capsys, "stats", model, "--recipe", tmp_path / "mine.json", "--out", out)
        assert "without errors: lm_head.weight is not in the output" in warned
    told = json.loads((tmp_path / "errors.json").read_text())
    assert told["recipe"]["default"]["format"] == "Q4_0"
    assert list(told["without_errors"]) == ["lm_head.weight"]
    assert parquet.read_table(tmp_path / "errors.parquet").to_pylist() == told["tensors"]
    with (tmp_path / "errors.csv").open(newline="") as file:
        texts = {row["tensor"]: row for row in csv.DictReader(file)}
    rows = {row["tensor"]: row for row in told["tensors"]}
    assert ",".join(rows["lm_head.weight"]) == f"{COLUMNS},{ERRORS}"
    with open_checkpoint(model) as checkpoint:
        for name, row in rows.items():
            found = [row[column] for column in ERRORS.split(",")]
            if name == "lm_head.weight":
                assert found == [None] * 11
            else:
                errors = measure_errors(quantized(checkpoint, recipe, name))
                assert found == list(errors.whole.model_dump().values())
            assert [texts[name][column] for column in ERRORS.split(",")] == [
                "" if value is None else str(value) for value in found
            ]
    assert [rows[DOWN][column] for column in ("format", "method", "saturation")] == ["F16", "", None]
    kept = texts["model.norm.weight"]
    assert (kept["format"], kept["squared_error"], kept["snr_db"]) == ("F32", "0.0", "")


def test_what_is_lost_most_comes_first(exported, capsys):
    told, _ = bitwright(capsys, "stats", exported, "--preset", "Q4_0")
    lines = [line for line in told.splitlines() if "model." in line]
    assert DOWN in lines[0]
    with open_checkpoint(exported) as checkpoint:
        found = measure_errors(quantized(checkpoint, recipe_for_preset(checkpoint, "Q4_0"), DOWN))
    worst = int(found.by_input.argmax())
    assert f" {worst}  " in lines[0]
    assert f"{found.by_input[worst]:.4g}" in lines[0]
    assert "40, 9" in lines[0]
    assert "the 16 with the channels of which most is lost are shown" in told


def test_recipes_that_are_refused(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("engine.weight_statistics.gather", lambda *asked, **more: pytest.fail("read"))
    matrix = tmp_path / "imatrix.gguf"
    matrix.write_bytes(b"?")
    for said, arguments in (
        ("Give --preset or --recipe, not both", ("--preset", "Q4_0", "--recipe", "mine.json")),
        ("--imatrix weighs what a recipe does", ("--imatrix", matrix)),
        ("is not an importance matrix", ("--preset", "Q4_0", "--imatrix", matrix)),
        ("Q4_M", ("--preset", "Q4_M")),
    ):
        with pytest.raises(RecipeError, match=said):
            bitwright(capsys, "stats", exported, *arguments)
    other = matrix.rename(tmp_path / "i.csv")
    options = ("--preset", "Q4_0", "--imatrix", other, "--out", other, "--overwrite")
    with pytest.raises(OutputError, match="is the input itself"):
        bitwright(capsys, "stats", exported, *options)


def test_outputs_that_are_refused(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("engine.checkpoint.open_checkpoint", lambda path: pytest.fail("opened"))
    for name in ("stats.txt", "stats", "stats.csv.gz"):
        with pytest.raises(OutputError, match=r"must end in \.csv, \.json or \.parquet"):
            bitwright(capsys, "stats", model, "--out", tmp_path / name)
    monkeypatch.setattr(statistics_table, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match="needs pyarrow, which is missing"):
        bitwright(capsys, "stats", model, "--out", tmp_path / "stats.parquet")
    monkeypatch.undo()
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        bitwright(capsys, "stats", model, "--out", there)
    assert there.read_text() == "mine"
    bitwright(capsys, "stats", model, "--out", there, "--overwrite")
    assert there.read_text().startswith("tensor,canonical")
    config = (model / "config.json").read_bytes()
    os.link(model / "model.safetensors", tmp_path / "link.csv")
    for own in (model / "config.json", tmp_path / "link.csv"):
        with pytest.raises(OutputError, match="is the input itself"):
            bitwright(capsys, "stats", model, "--out", own, "--overwrite")
    assert (model / "config.json").read_bytes() == config


def test_nothing_is_left_of_a_table_that_cannot_be_written(model, tmp_path, capsys, monkeypatch):
    def full(*arguments: object) -> None:
        arguments[0].write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statistics_table, "_write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        bitwright(capsys, "stats", model, "--out", tmp_path / "stats.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_refused(tmp_path, capsys):
    save_file({"a": torch.ones(3, 3), "b": torch.full((4, 4), torch.nan)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"b of .* holds NaN or infinity"):
        bitwright(capsys, "stats", tmp_path / "m.safetensors")


@pytest.fixture(scope="module")
def runnable(tmp_path_factory) -> tuple[Path, Path]:
    """A model with a tokenizer, and a text."""
    folder = tmp_path_factory.mktemp("activations")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT))
    return write_llama(folder / "model"), folder / "text.jsonl"


def test_columns_of_activations(runnable, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    model, text = runnable
    asked = ("--calibration", text, "--length", 40, "--windows", 3, "--threads", 1, "--range", "percentile")
    told, _ = bitwright(capsys, "stats", model, *asked, "--out", tmp_path / "a.csv")
    assert "activations on 3 windows of 40 tokens (" in told
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {row["tensor"]: row for row in csv.DictReader(file)}
    (file,) = (tmp_path / "cache" / "bitwright" / "activations").iterdir()
    with read_activations(file) as found:
        layer = found.layers["blk.1.ffn_down.weight"]
        cache = found.caches[1]
    row = rows["model.layers.1.mlp.down_proj.weight"]
    assert int(row["input_tokens"]) == 120
    assert float(row["input_absmax"]) == layer.absmax
    assert float(row["input_peak_value"]) == layer.peaks[0].value
    low, high = float(row["input_range_min"]), float(row["input_range_max"])
    assert float(row["input_min"]) <= low < float(row["input_p50"]) < high <= float(row["input_max"])
    assert rows["blk.1.output"]["role"] == "block output"
    assert rows["blk.1.output"]["min"] == rows["model.norm.weight"]["input_min"] == ""
    told, _ = bitwright(capsys, "stats", model, *asked[:-2], "--json")
    said = json.loads(told)["activations"]
    assert said["ran"]["files"] == [str(text)]
    assert np.array_equal(said["caches"]["1"]["key_max"], cache.keys[1])
    told, warned = bitwright(capsys, "stats", model, "--prompt", "The harbour was quiet.")
    assert "model.layers.1.self_attn.q_proj, k_proj, v_proj" in " ".join(told.split())
    assert "on a prompt of" in told
    assert "from 3 times on a channel counts as an outlier" in " ".join(told.split())
    assert "tokens: single channels depend on chance" in warned
    (prompted,) = {*(tmp_path / "cache" / "bitwright" / "activations").iterdir()} - {file}
    drawn = tmp_path / "inputs.svg"
    of = ("--source", "activations", "--activations", prompted, "--kind", "outliers", "--role", "ffn_down")
    bitwright(capsys, "plot", model, *of, "--out", drawn)
    assert "model · “The harbour was quiet.”" in drawn.read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--range", "mse"), "Name a text"),
        (("--windows", 128), "--windows is of activations"),
        (("--length", 512), "--length is of activations"),
        (("--seed", 0), "--seed is of activations"),
        (("--memory-limit", "8GB"), "--memory-limit is of activations"),
        (("--activations-out", "a.activations"), "--activations-out is of activations"),
        (("--prompt", "a", "--windows", 4), "leave out --windows"),
        (("--prompt", ""), "The prompt is empty"),
        (("--prompt", "  "), "The prompt is empty"),
        (("--prompt", "a", "--calibration", "sample"), "leave out one"),
    ],
)
def test_activations_that_cannot_be_asked_for(model, capsys, options, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        bitwright(capsys, "stats", model, *options)
