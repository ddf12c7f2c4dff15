"""`bitwright calibrate` and `bitwright imatrix` as a user types them, in this process."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from engine.api.errors import CalibrationError, OutputError
from engine.calibration.importance_files import write_importance
from engine.cli import app
from resources import SAMPLE_MODEL
from tests.engine.calibration.matrices import importance, read_gguf, read_older
from tests.tiny import TEXT, write_llama

IMATRIX = SAMPLE_MODEL / "imatrix.gguf"


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    write_llama(folder / "model")
    (folder / "texts").mkdir()
    for name in ("a.txt", "b.md"):
        (folder / "texts" / name).write_text("\n".join(TEXT) * 2)
    return folder


def bitwright(capsys, *arguments: object) -> tuple[str, str]:
    """What it says on stdout and on stderr."""
    app([str(argument) for argument in arguments], standalone_mode=False)
    said = capsys.readouterr()
    return said.out, said.err


def test_calibrate_then_look_at_it(place, tmp_path, capsys):
    out = tmp_path / "i.gguf"
    told, warned = bitwright(
        capsys, "calibrate", place / "model", "--calibration", place / "texts", "--calibration",
        place / "texts" / "a.txt", "--out", out, "--length", 64, "--windows", 6, "--output-tensor",
    )  # fmt: skip
    assert "the importance of 15 tensors from 384 tokens" in told
    assert "Read back and verified." in told
    assert "warning: 6 windows of text are few" in warned
    assert read_gguf(out)[1]["imatrix.datasets"] == ["texts", "a.txt"]
    table, _ = bitwright(capsys, "imatrix", out, "--model", place / "model")
    assert "blk.1.ffn_down" in table
    assert "15 tensors, 6 windows of 64 tokens, from texts, a.txt" in table


def test_calibrate_as_json(place, tmp_path, capsys):
    text = place / "texts" / "a.txt"
    asked = ("calibrate", place / "model", "--calibration", text, "--out", tmp_path / "i.dat", "--length", 64)
    told, _ = bitwright(capsys, *asked, "--dry-run", "--json")
    foreseen = json.loads(told)
    assert foreseen["windows"] > 1
    assert (foreseen["length"], len(foreseen["tensors"])) == (64, 14)
    assert foreseen["needs"]["memory"] > 0
    assert not (tmp_path / "i.dat").exists()
    result = json.loads(bitwright(capsys, *asked, "--json")[0])
    assert (result["kind"], result["windows"]) == ("calibrate", foreseen["windows"])
    entries, chunks, dataset = read_older(tmp_path / "i.dat")
    assert (len(entries), chunks, dataset) == (14, foreseen["windows"], "a.txt")
    with pytest.raises(OutputError, match="exists already"):
        bitwright(capsys, *asked)


def test_a_dry_run_in_words_needs_no_output(place, capsys):
    told, _ = bitwright(capsys, "calibrate", place / "model", "--dry-run")
    assert "14 tensors: blk.0.attn_q.weight … blk.1.ffn_down.weight" in told
    assert "Memory: about" in told
    with pytest.raises(CalibrationError, match="--out"):
        bitwright(capsys, "calibrate", place / "model")


def test_statistics_as_json_and_csv(tmp_path, capsys):
    told, _ = bitwright(capsys, "imatrix", IMATRIX, "--json", "--csv", tmp_path / "t.csv")
    shown = json.loads(told)
    assert (shown["windows"], shown["datasets"], len(shown["layers"])) == (120, ["cal400k.txt"], 4)
    assert shown["unseen"] == []
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == [tensor["tensor"] for tensor in shown["tensors"]]
    assert float(rows[5]["entropy"]) == shown["tensors"][5]["entropy"]


def test_experts_and_plain_matrices_that_saw_nothing(tmp_path, capsys):
    entries = importance(
        blk__0__ffn_up_exps__weight=([[1.0], [0.0], [0.0]], [1, 0, 7]), blk__0__attn_q__weight=([[0.0]], [1])
    )
    write_importance(tmp_path / "i.gguf", entries, overwrite=False)
    told, _ = bitwright(capsys, "imatrix", tmp_path / "i.gguf")
    assert "No token, or nothing but zeros, reached: blk.0.ffn_up_exps.weight, experts 1, 2 of 3" in told
    assert "Nothing but zeros reached: blk.0.attn_q.weight" in told
    assert "Every expert" not in told


def test_files_are_merged_and_converted(tmp_path, capsys):
    shutil.copy(IMATRIX, tmp_path / "a.gguf")
    _, _ = bitwright(capsys, "imatrix", tmp_path / "a.gguf", IMATRIX, "--merge-to", tmp_path / "both.gguf")
    arrays, values = read_gguf(tmp_path / "both.gguf")
    assert values["imatrix.chunk_count"] == 240
    assert arrays["blk.0.attn_q.weight.counts"].tolist() == [[122880]]
    told, _ = bitwright(capsys, "imatrix", tmp_path / "both.gguf", "--merge-to", tmp_path / "one.dat")
    assert told.endswith("one.dat: 28 tensors, 240 windows of 512 tokens. Written, read back and verified.\n")
    assert len(told.splitlines()) == 1, "only a conversion was asked for"
    assert read_older(tmp_path / "one.dat")[1] == 240


def test_what_the_older_format_loses_is_said(tmp_path, capsys):
    entries = importance(blk__0__ffn_down__weight=([[1.0] * 4, [1.0] * 4], [64, 64]))
    entries.datasets, entries.chunk_size = ["a.txt", "b.txt"], 64
    write_importance(tmp_path / "i.gguf", entries, overwrite=False)
    _, warned = bitwright(capsys, "imatrix", tmp_path / "i.gguf", "--merge-to", tmp_path / "i.dat")
    for lost in (
        "all names of its 2 texts, only the last one's",
        "windows have 64 tokens",
        "tokens each expert saw",
    ):
        assert lost in warned
    _, warned = bitwright(capsys, "imatrix", tmp_path / "i.dat", "--merge-to", tmp_path / "o.gguf")
    assert warned == ""


def test_outputs_that_must_not_be_written(tmp_path, capsys):
    shutil.copy(IMATRIX, tmp_path / "a.gguf")
    before = (tmp_path / "a.gguf").read_bytes()
    for option in ("--merge-to", "--csv"):
        with pytest.raises(OutputError, match="is the input itself"):
            bitwright(capsys, "imatrix", tmp_path / "a.gguf", option, tmp_path / "a.gguf", "--overwrite")
        (tmp_path / "there").touch()
        with pytest.raises(OutputError, match="exists already"):
            bitwright(capsys, "imatrix", tmp_path / "a.gguf", option, tmp_path / "there")
    assert (tmp_path / "a.gguf").read_bytes() == before


def test_a_matrix_of_another_model(place, capsys):
    with pytest.raises(CalibrationError, match=r"blk\.0\.attn_q\.weight has 1 × 512 values, the model needs"):
        bitwright(capsys, "imatrix", IMATRIX, "--model", place / "model")


def test_a_preset_with_a_matrix_is_another_one(tmp_path, capsys):
    """As llama-quantize: Q4_0 with an importance matrix has its first eighth of ffn_down in Q4_1."""
    model = write_llama(tmp_path / "model", config={"num_hidden_layers": 8})
    entries = importance(blk__0__ffn_down__weight=([[1.0] * 160], [1]))
    write_importance(tmp_path / "i.dat", entries, overwrite=False)
    formats = []
    for more in ((), ("--imatrix", tmp_path / "i.dat")):
        told, warned = bitwright(capsys, "quantize", model, "--preset", "Q4_0", "--dry-run", "--json", *more)
        plan = json.loads(told)
        formats.append({tensor["name"]: tensor["format"] for tensor in plan["tensors"]})
    changed = {name: format for name, format in formats[1].items() if format != formats[0][name]}
    assert changed == {"blk.0.ffn_down.weight": "Q4_1"}
    assert plan["recipe"]["imatrix"] == str(tmp_path / "i.dat")
    assert "the importance matrix says nothing of 55 tensors (blk.0.attn_q.weight" in warned
