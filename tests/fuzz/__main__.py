"""`python -m tests.fuzz READER`: damages that reader's files for a while, guided by the code that they reach.

Needs Atheris (`pip install -e '.[fuzz]'`). What the property tests demand is demanded here: `readers.check`.
Inputs that reached something new lie in build/fuzz/READER afterwards; one that fails ends the run and is
written, made as small as it can be, into the corpus, where a test reads it again ever after.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz import CORPUS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "build" / "fuzz"
LONGEST = 8192
"""Bytes of an input."""

LARGEST = 2048
"""Bytes of one that is worth keeping: the corpus is read by every run of the tests."""

GUIDES = ("engine.checkpoint", "engine.tokenizer", "engine.calibration.importance", "engine.api.recipe",
          "engine.api.plan", "engine.api.wording", "zipfile", "json")  # fmt: skip
"""Modules whose branches guide the search."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a reader of files.")
    parser.add_argument("reader", choices=sorted(folder.name for folder in CORPUS.iterdir()))
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--merge", action="store_true", help="only add to the corpus what was found before")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print("The fuzzer needs Atheris: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    found = FOUND / options.reader
    found.mkdir(parents=True, exist_ok=True)
    if options.merge:
        return merge(options.reader, found)
    if options.child:
        fuzz(options.reader, options.seconds, found)
    # A process of its own: the search ends it where it stands.
    command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--child"]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    for failing in sorted(FOUND.glob(f"{options.reader}-*")):
        keep(options.reader, failing)
    return ended.returncode


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Search. Does not return."""
    import atheris

    with atheris.instrument_imports(include=list(GUIDES)):
        from tests.fuzz.readers import READERS, check, mutate

    reader = READERS[name]
    limits = [f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=3000", f"-artifact_prefix={found}-"]
    task = [f"-max_total_time={seconds}", "-print_final_stats=1", str(found), str(CORPUS / name)]

    def damage(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            return atheris.Mutate(data, most)
        return mutate(reader, data, random)[:most]

    def run(data: bytes) -> None:
        check(reader, data)

    atheris.Setup([sys.argv[0], *limits, *task], run, custom_mutator=damage)
    atheris.Fuzz()


def merge(name: str, found: Path) -> int:
    """Add to the corpus what was found and takes ways through our code that nothing in it takes."""
    from tests.fuzz.seeds import committed

    known = set().union(*(ways(name, data) for data in committed(name).values()))
    inputs = sorted((path.read_bytes() for path in found.iterdir()), key=lambda data: (len(data), data))
    for data in inputs:
        if len(data) <= LARGEST and not (new := ways(name, data)) <= known:
            known |= new
            (CORPUS / name / f"found-{sha256(data).hexdigest()[:8]}").write_bytes(data)
    return 0


def ways(name: str, data: bytes) -> set[tuple[str, int, int]]:
    """From which line to which the reader goes with `data`, by file."""
    from tests.fuzz.readers import READERS, run_alone

    gone: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, argument: object) -> Callable | None:
        file = frame.f_code.co_filename
        if not file.startswith(str(ROOT / "engine")):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, argument: object) -> Callable:
            nonlocal last
            gone.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        run_alone(READERS[name], data)
    finally:
        sys.settrace(None)
    return gone


def keep(name: str, failing: Path) -> None:
    """Put a failing input into the corpus, as small as it can be."""
    from tests.fuzz.readers import READERS, check

    reader = READERS[name]

    def fails(data: bytes) -> bool:
        try:
            check(reader, data)
        except Exception:
            return True
        return False

    data = failing.read_bytes()
    if fails(data):
        data = shrunk(data, fails)
        path = CORPUS / name / f"failed-{sha256(data).hexdigest()[:8]}"
        path.write_bytes(data)
        print(f"{path}: {len(data)} bytes that fail")
    failing.unlink()


def shrunk(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """`data` without whatever can be left out while it still fails."""
    length = len(data)
    while length := length // 2:
        at = 0
        while at < len(data):
            without = data[:at] + data[at + length :]
            if fails(without):
                data = without
            else:
                at += length
    return data


if __name__ == "__main__":
    sys.exit(main())
