"""Files of earlier outputs of a name that lie beside the new one, in another number of parts.

Only what a finished job has written, and what is still as it wrote it, is ever removed: a file may have such
a name for another reason, a download for instance.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.api.jobs import QuantizeResult
from engine.jobs.folder import jobs_on
from engine.jobs.journal import Unit
from engine.jobs.units import checksum
from engine.preparation import Prepared, header_unit

MOST_NAMED = 6


def about_earlier(prepared: Prepared, output: Path, inputs: Sequence[Path], *, overwrite: bool) -> list[str]:
    """What there is to say of such files before `output` is written. `inputs` are never among them."""
    going, said = _going(prepared, output, inputs, overwrite=overwrite)
    gone = f"{_named(going)} of the earlier output of this name will be removed when the new one stands"
    return ([gone] if going else []) + said


def give_way(prepared: Prepared, output: Path, inputs: Sequence[Path], *, overwrite: bool) -> list[str]:
    """Remove those of earlier jobs with `overwrite`; sentences of what went, and of what lies there still.

    The output stands by now: nothing that the disk refuses is raised.
    """
    going, said = _going(prepared, output, inputs, overwrite=overwrite)
    removed, kept = [], []
    for file in going:
        try:
            file.unlink(missing_ok=True)
            removed.append(file)
        except OSError as error:
            kept.append(
                f"{file.name} of the earlier output of this name could not be removed ({error.strerror}): "
                "runtimes may take it for the new one; remove it"
            )
    gone = [f"removed what was left of the earlier output of this name: {_named(removed)}"] if removed else []
    return gone + kept + said


def _going(
    prepared: Prepared, output: Path, inputs: Sequence[Path], *, overwrite: bool
) -> tuple[list[Path], list[str]]:
    """The files that go, and what there is to say of those that stay."""
    try:
        found = _earlier(prepared, output, inputs)
    except OSError as error:
        return [], [_unknown(error)]
    if not overwrite:
        return [], _beside(found.ours + found.others)
    return found.ours, _beside(found.others)


@dataclass(frozen=True)
class _Earlier:
    """Files with the output's name, whole or of a part: of earlier jobs (`ours`), and `others`."""

    ours: list[Path]
    others: list[Path]


def _earlier(prepared: Prepared, output: Path, inputs: Sequence[Path]) -> _Earlier:
    """What lies beside `output` and is neither of its own files nor one of `inputs`."""
    if not output.parent.is_dir():
        return _Earlier([], [])
    part = re.compile(re.escape(output.name.removesuffix(".gguf")) + r"-\d{5}-of-\d{5}\.gguf")
    own = {file.name for file in prepared.files(output)}
    named = [file for file in output.parent.iterdir() if file == output or part.fullmatch(file.name)]
    beside = sorted(file for file in named if file.name not in own and file.is_file())
    read = [path for path in inputs if path.exists()]
    found = [file for file in beside if not any(file.samefile(path) for path in read)]
    made = _made(output) if found else set()
    return _Earlier([f for f in found if f.name in made], [f for f in found if f.name not in made])


def _made(output: Path) -> set[str]:
    """The names of files that finished jobs on `output` have written, and that are as they were."""
    found = set()
    for job in jobs_on(output):
        result = job.summary().result
        if not isinstance(result, QuantizeResult):
            continue
        units = job.journal.units()
        for index, path in enumerate(result.files):
            name = Path(path).name
            if _is_as_written(output.with_name(name), units.get(header_unit(index))):
                found.add(name)
    return found


def _is_as_written(file: Path, header: Unit | None) -> bool:
    """By the bytes of its header, which say what the file holds and where."""
    if header is None or not file.is_file():
        return False
    with file.open("rb") as opened:
        return checksum(opened.fileno(), header.offset, header.bytes) == header.crc32


def _beside(files: list[Path]) -> list[str]:
    if not files:
        return []
    return [f"another output of this name lies beside it ({_named(files)}): runtimes may take the wrong one"]


def _named(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:MOST_NAMED])
    return names if len(files) <= MOST_NAMED else f"{names} and {len(files) - MOST_NAMED} more"


def _unknown(error: OSError) -> str:
    return f"whether another output of this name lies beside it cannot be seen ({error.strerror})"
