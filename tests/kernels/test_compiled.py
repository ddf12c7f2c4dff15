"""Where compiled kernels are kept: in any state of the folder encoders work, and nothing else is touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENCODE = """
import logging, sys
logging.basicConfig(level="WARNING")
import numpy as np
from kernels.compiled import folder, is_compiled, is_lasting
before = is_compiled("encode_stepped")
from kernels.encoders import encode
data = encode(np.ones((1, 32), np.float32), "MXFP4", None, "fast")
print(before, is_lasting(), is_compiled("encode_stepped"), data.tobytes().hex())
"""
ONES = "7d" + "66" * 16
"""In MXFP4: the step 2^-2, and the value 4 everywhere."""


def encode_in(cache: Path, *, limit: str = "") -> tuple[str, str]:
    """What a fresh process prints that encodes with its cache below the folder, and what it warns of."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "NUMBA_CACHE_DIR": str(cache),
    }
    done = subprocess.run(
        [sys.executable, "-c", limit + ENCODE],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    assert encode_in(cache) == (f"False True True {ONES}", "")
    return cache


def test_the_second_process_finds_what_the_first_compiled(filled):
    assert encode_in(filled) == (f"True True True {ONES}", "")


def test_a_damaged_file_is_compiled_anew(filled):
    for code in filled.glob("bitwright-kernels/*/*/*.nbc"):
        code.write_bytes(code.read_bytes()[:1000])
    printed, warned = encode_in(filled)
    assert printed == f"True True False {ONES}"
    assert "encode_stepped: its cache cannot be used" in warned
    assert encode_in(filled) == (f"False True True {ONES}", "")


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    printed, warned = encode_in(blocked / "cache")
    assert printed == f"False False True {ONES}"
    assert "compiled kernels are not kept" in warned
    no_files = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    printed, warned = encode_in(tmp_path / "full", limit=no_files)  # as on a disk that is full
    assert printed == f"False True False {ONES}"
    assert "encode_stepped: its cache cannot be used" in warned


def test_folders_of_others_stay_and_old_ones_of_ours_go(filled):
    kept = filled / "bitwright-kernels"
    foreign, old, young = kept / "work", kept / "0123456789abcdef", kept / "fedcba9876543210"
    for place in (foreign, old, young):
        place.mkdir()
    for place in (foreign, old):
        os.utime(place, (0, 0))
    encode_in(filled)
    assert (foreign.exists(), old.exists(), young.exists()) == (True, False, True)


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
def test_a_folder_that_others_may_write_is_not_trusted(tmp_path):
    shared = tmp_path / "bitwright-kernels"
    shared.mkdir()
    shared.chmod(0o777)
    printed, warned = encode_in(tmp_path)
    assert printed == f"False False True {ONES}"
    assert "could be written by others" in warned
    assert not any(shared.iterdir()) or all(not any(place.iterdir()) for place in shared.iterdir())
