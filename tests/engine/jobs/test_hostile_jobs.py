"""Whatever stands in a job's folder, listing, resuming and cleaning end in one of our own errors."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.errors import JobError, UserError
from engine.api.jobs import QuantizeRequest, Saved
from engine.api.recipe import Choice, Recipe
from engine.jobs.cleaning import clean_jobs
from engine.jobs.folder import Job, list_jobs
from engine.jobs.journal import Journal, Unit
from engine.jobs.units import UnitFile
from engine.resume import resume

UNIT = Unit(unit="a", offset=0, bytes=4, crc32=1, saved=Saved(done=1, total=2, unit="blocks"))
LINE = UNIT.model_dump_json().encode() + b"\n"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
lines = st.one_of(
    st.binary(max_size=60),
    st.just(LINE),
    st.fixed_dictionaries(
        {"unit": values, "offset": values, "bytes": values, "crc32": values},
        optional={"file": values, "saved": values},
    ).map(lambda content: json.dumps(content).encode() + b"\n"),
    st.tuples(st.integers(0, len(LINE) - 1), st.binary(max_size=3)).map(
        lambda change: LINE[: change[0]] + change[1] + LINE[change[0] + len(change[1]) :]
    ),
)
bounded = settings(max_examples=150, deadline=None, derandomize=True)


@bounded
@given(st.lists(lines, max_size=6).map(b"".join))
def test_a_journal_of_any_bytes_is_read_and_goes_on(content):
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        journal.path.write_bytes(content)
        for unit in journal.units().values():
            assert unit.offset >= 0
            assert unit.bytes >= 0
        journal.saved()
        journal.append([UNIT])
        assert journal.units()["a"] == UNIT
        assert journal.saved() == UNIT.saved


@bounded
@given(st.lists(lines, max_size=6).map(b"".join))
def test_no_unit_counts_whose_bytes_are_others(content):
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        journal.path.write_bytes(content)
        file = UnitFile(Path(folder) / "file", 4, journal, "")
        try:
            found = file.finished({"a": (0, 4), "b": (2, 2)})
        finally:
            file.close()
        for unit in found.values():
            assert (unit.file, unit.crc32) == ("", {4: 0x2144DF1C, 2: 0x41D912FF}[unit.bytes])  # of zeros


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    recipe = Recipe(default=Choice(format="Q4_K"))
    request = QuantizeRequest(model=str(tmp_path / "absent"), output=str(tmp_path / "o.gguf"), recipe=recipe)
    made = Job.create(request, tmp_path / "o.gguf", {"recipe": "1"})
    made.unlock()
    return made


def damaged(whole: bytes) -> Iterator[bytes]:
    """Cut off, overwritten, filled with NULs as after a power loss, nested deep, numbers without end."""
    yield from (b"", bytes(len(whole)), b"[" * 100_000, b'{"version": 1e999}', b"9" * 5000, b"\xff\xfe" * 50)
    for tenth in range(11):
        at = tenth * len(whole) // 10
        for other in (b"", b"\0", b"}"):
            yield whole[:at] + other
            yield whole[:at] + other + whole[at + len(other) :]


@pytest.mark.parametrize("name", ["job.json", "state.json", "journal.jsonl"])
def test_a_damaged_file_hides_no_job_and_ends_in_a_sentence(job, name):
    path = job.folder / name
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        (listed,) = list_jobs()
        assert listed.id == job.id
        assert "\n" not in listed.message
        with pytest.raises(UserError) as caught:
            resume(job.id)
        assert "\n" not in str(caught.value)
        (job.folder / "state.json").write_bytes(b'{"state": "running"}')


def test_a_folder_that_is_no_job_s_is_left_out(job):
    other = job.folder.parent / "readme"
    other.write_text("not a folder")
    os.mkfifo(job.folder.parent / "pipe")
    (job.folder.parent / "empty").mkdir()
    (job.folder / "job.json").unlink()
    (job.folder / "job.json").mkdir()
    assert list_jobs() == []
    with pytest.raises(JobError, match="is no job"):
        resume(job.id)
    assert clean_jobs() == []
    assert other.exists()
