"""The partial output: whole or not at all, and one sentence for each way the disk says no."""

import errno
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from engine.api.errors import OutputError
from engine.api.jobs import Saved
from engine.api.outputs import partial_path
from engine.jobs import units
from engine.jobs.journal import Journal
from engine.jobs.partial import PartialFile, check_place, check_room


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


SAVED = Saved(done=1, total=2, unit="blocks")


def make(output: Path, size: int = 8, *, fresh: bool = True) -> PartialFile:
    return PartialFile(output, size, Journal(output.parent / "journal.jsonl"), "", fresh=fresh)


def test_filled_checked_and_renamed(tmp_path):
    output = tmp_path / "a.gguf"
    file = make(output, 100)
    file.write("a", 50, [memoryview(b"hel"), memoryview(b"lo")])
    assert file.finished({"a": (50, 5)}) == {}, "it counts with the commit"
    file.commit(SAVED)
    (unit,) = file.finished({"a": (50, 5)}).values()
    assert (unit.crc32, unit.saved) == (zlib.crc32(b"hello"), SAVED)
    assert not output.exists()
    file.publish(overwrite=False)
    assert output.read_bytes() == bytes(50) + b"hello" + bytes(45)
    assert not partial_path(output).exists()


def test_kept_for_resuming_unless_fresh(tmp_path):
    output = tmp_path / "a.gguf"
    file = make(output)
    file.write("a", 0, [memoryview(b"12345678")])
    file.commit()
    file.close()
    for fresh, found in ((False, {"a"}), (True, set())):
        file = make(output, fresh=fresh)
        assert set(file.finished({"a": (0, 8)})) == found
        file.close()


def test_one_writer_at_a_time(tmp_path):
    output = tmp_path / "a.gguf"
    file = make(output)
    with pytest.raises(OutputError, match="another job is writing it"):
        make(output)
    file.discard()
    make(output).discard()
    assert list(tmp_path.glob("a.gguf*")) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "no permission to write there"),
        (errno.EROFS, "mounted read-only"),
        (errno.EIO, "cannot be used"),
    ],
)
def test_opener_that_fails(tmp_path, monkeypatch, code, said):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(units, "open_file", fail)
    with pytest.raises(OutputError, match=said) as caught:
        make(tmp_path / "a.gguf")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("a.gguf*")) == []
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make(tmp_path / "a.gguf").discard()


def test_no_room_for_the_whole_leaves_nothing(tmp_path):
    """A real limit in a child: the file may not pass 4096 bytes."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from engine.jobs.journal import Journal\n"
        "from engine.jobs.partial import PartialFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "PartialFile(Path(sys.argv[1]), 100_000, Journal(Path(sys.argv[1] + '.journal')), '', fresh=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.gguf"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "would pass this system's limit on file sizes" in done.stderr
    assert list(tmp_path.glob("a.gguf*")) == []


def test_outputs_that_are_refused(tmp_path):
    source = tmp_path / "model.gguf"
    source.write_bytes(b"x")
    (tmp_path / "link.gguf").symlink_to(source)
    (tmp_path / "there.gguf").write_bytes(b"y")
    os.mkfifo(tmp_path / "pipe")
    refused = {
        source: "is the input itself",
        tmp_path / "link.gguf": "is the input itself",
        tmp_path: "is a folder",
        tmp_path / "absent" / "a.gguf": "does not exist",
        source / "a.gguf": "model.gguf is a file, no folder; choose another one",
        source / "deep" / "a.gguf": "model.gguf is a file, no folder",
        Path("/proc/a.gguf"): "no file can be written in /proc; choose another folder",
        tmp_path / "pipe": "is not a plain file",
        tmp_path / ("x" * 300): "too long",
        tmp_path / ("x" * 250): "too long",
    }
    for output, said in refused.items():
        with pytest.raises(OutputError, match=said):
            check_place(output, [source], overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        check_place(tmp_path / "there.gguf", [source], overwrite=False)
    check_place(tmp_path / "there.gguf", [source], overwrite=True)
    new = tmp_path / "new" / "folder" / "x.gguf"
    with pytest.raises(OutputError, match="does not exist; make it first"):
        check_place(new, [source], overwrite=False)
    check_place(new, [source], overwrite=False, make_folders=True)
    assert check_room(new, 1) > 1
    with pytest.raises(OutputError, match=r"there.gguf is a file, no folder; choose another one"):
        check_place(
            tmp_path / "there.gguf" / "deeper" / "x.gguf", [source], overwrite=False, make_folders=True
        )
    with pytest.raises(OutputError, match=r"bytes, but .* free"):
        check_room(tmp_path / "new.gguf", 1 << 60)
    assert source.read_bytes() == b"x"
