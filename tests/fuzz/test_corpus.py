"""Every file that the fuzzer starts from, or has found, is read or refused in order."""

import shutil
import sys

import pytest

from tests.fuzz import CORPUS
from tests.fuzz.__main__ import keep, main, merge, shrunk
from tests.fuzz.readers import READERS, check
from tests.fuzz.seeds import SEEDS, committed


@pytest.mark.parametrize("name", READERS)
def test_corpus(name):
    for file, data in committed(name).items():
        try:
            check(READERS[name], data)
        except Exception as error:
            error.add_note(f"{name}/{file}")
            raise


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_are_those_that_the_script_makes(name):
    for seed, content in SEEDS[name]().items():
        assert (CORPUS / name / f"seed-{seed.replace(' ', '-')}").read_bytes() == content


def test_every_reader_has_seeds_and_every_folder_a_reader():
    assert set(READERS) == set(SEEDS) == {path.name for path in CORPUS.iterdir()}


def test_good_files_are_read():
    """Else the mutations would begin behind the first refusal."""
    refused = {name: check(READERS[name], data) for name in READERS for data in SEEDS[name]().values()}
    assert {name for name, sentences in refused.items() if sentences} <= {"gguf", "config", "safetensors"}


def test_merging_adds_only_what_goes_new_ways(tmp_path, monkeypatch):
    corpus, found = tmp_path / "corpus", tmp_path / "found"
    shutil.copytree(CORPUS / "imatrix", corpus / "imatrix")
    found.mkdir()
    seed = SEEDS["imatrix"]()["one matrix"]
    for name, data in {
        "same": seed,
        "longer": seed + bytes(8),
        "cut": seed[:50],
        "cut too": seed[:51],
    }.items():
        (found / name).write_bytes(data)
    for path in (corpus / "imatrix").glob("found-*"):
        path.unlink()
    for module in ("seeds", "__main__"):
        monkeypatch.setattr(f"tests.fuzz.{module}.CORPUS", corpus)
    merge("imatrix", found)
    added = {path.read_bytes() for path in (corpus / "imatrix").iterdir()}
    assert added == {*SEEDS["imatrix"]().values(), seed[:50]}


def test_a_failing_input_goes_into_the_corpus(tmp_path, monkeypatch):
    def check(reader, data):
        assert b"X" not in data

    (tmp_path / "gguf").mkdir()
    monkeypatch.setattr("tests.fuzz.__main__.CORPUS", tmp_path)
    monkeypatch.setattr("tests.fuzz.readers.check", check)
    for content in (b"abcXdef", b"harmless after all"):
        (tmp_path / "gguf-crash-0").write_bytes(content)
        keep("gguf", tmp_path / "gguf-crash-0")
        assert not (tmp_path / "gguf-crash-0").exists()
    assert [path.read_bytes() for path in (tmp_path / "gguf").iterdir()] == [b"X"]


def test_failing_inputs_are_made_small():
    assert shrunk(b"abcXdefYghi" * 9, lambda data: b"X" in data and b"Y" in data) == b"XY"


def test_without_atheris_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr("tests.fuzz.__main__.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "gguf"])
    assert main() == 2
    assert "pip install -e '.[fuzz]'" in capsys.readouterr().err
