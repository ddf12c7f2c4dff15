"""What a resumed job must find unchanged: sources, recipe, versions, threads, instruction set."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

from engine import __version__

LIBRARIES = ("numpy", "numba", "llvmlite", "gguf")


def fingerprint(files: list[Path], recipe: str, header: bytes, threads: int) -> dict[str, str]:
    """A flat dictionary, so that a difference can be named. `files` count by path, size and time.

    `header` of the output holds everything that comes from the config and the tokenizer.

    A changed file of the same size and time would pass: hashing a checkpoint takes longer than many jobs.
    """
    facts = {f"file {path}": _identity(path) for path in files}
    facts["config or tokenizer"] = hashlib.sha256(header).hexdigest()
    facts["recipe"] = hashlib.sha256(recipe.encode()).hexdigest()
    facts["bitwright"] = __version__
    facts |= {library: version(library) for library in LIBRARIES}
    facts["threads"] = str(threads)
    facts["processor"] = _processor()
    return facts


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What differs, in words: "numpy was 2.0.1, is 2.1.0"."""
    said = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if before != after:
            changed = key in ("recipe", "config or tokenizer") or key.startswith("file ")
            said.append(f"{key} has changed" if changed else f"{key} was {before}, is {after}")
    return said


def _identity(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


def _processor() -> str:
    """Architecture and a digest of the vector extensions that Numba compiles for."""
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    features = str(get_host_cpu_features().flatten())
    return f"{platform.machine()} {get_host_cpu_name()} {hashlib.sha256(features.encode()).hexdigest()[:8]}"
