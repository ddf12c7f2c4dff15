"""The files of a quantize job's output: which stand already, which are written, verified and published."""

from contextlib import ExitStack
from pathlib import Path

from engine.api.outputs import partial_path
from engine.api.progress import Listener, Progress
from engine.export.gguf import verify
from engine.jobs.errors import explained
from engine.jobs.folder import Job
from engine.jobs.journal import Journal
from engine.jobs.partial import PartialFile
from engine.jobs.units import checksum, planned
from engine.preparation import Prepared


def seem_published(job: Job, prepared: Prepared, output: Path) -> bool:
    """Whether all files of the output have their names already, as far as names and sizes tell."""
    return len(_seeming(job.journal, prepared, output)) == len(prepared.parts)


def published(job: Job, prepared: Prepared, output: Path, listener: Listener) -> bool:
    """Whether the output stands as the journal says, its bytes read and compared."""
    return len(_standing(job.journal, prepared, output, listener)) == len(prepared.parts)


def unpublished(job: Job, prepared: Prepared, output: Path) -> list[Path]:
    """The files that are still to get their names: nothing else may have them."""
    seeming = _seeming(job.journal, prepared, output)
    return [file for index, file in enumerate(prepared.files(output)) if index not in seeming]


def _seeming(journal: Journal, prepared: Prepared, output: Path) -> set[int]:
    """The parts whose files have their names, as far as names and sizes tell."""
    found = set()
    for index, file in enumerate(prepared.files(output)):
        places = prepared.places(index)
        finished = len(planned(journal, _name(index), places)) == len(places)
        if finished and not partial_path(file).exists() and file.is_file():
            with explained(file):
                if file.stat().st_size == prepared.parts[index].size:
                    found.add(index)
    return found


def _standing(journal: Journal, prepared: Prepared, output: Path, listener: Listener) -> set[int]:
    """The parts whose files have their names, their bytes read and compared with the journal."""
    files = prepared.files(output)
    return {
        index
        for index in _seeming(journal, prepared, output)
        if _is_whole(journal, prepared, index, files[index], listener)
    }


def _is_whole(journal: Journal, prepared: Prepared, index: int, path: Path, listener: Listener) -> bool:
    done = 0
    with explained(path), path.open("rb") as file:
        for name, unit in planned(journal, _name(index), prepared.places(index)).items():
            listener(Progress("check finished", done, prepared.parts[index].size, "bytes", name))
            if checksum(file.fileno(), unit.offset, unit.bytes) != unit.crc32:
                return False
            done += unit.bytes
    return True


def _name(index: int) -> str:
    """What the journal calls the file of a part (see `Unit.file`)."""
    return "" if index == 0 else f"part {index + 1}"


class OutputFiles:
    """All files of an output while they are filled; those that an earlier run has published stay as they are.

    `finished`: the units of work, by name, that are in their files already, with their CRC-32.
    """

    def __init__(self, prepared: Prepared, output: Path, journal: Journal, listener: Listener) -> None:
        """Raises `OutputError` where a file cannot be made, or another job is at it."""
        self._prepared = prepared
        fresh = not journal.units()
        standing = _standing(journal, prepared, output, listener)
        self.finished: dict[str, int] = {}
        self._partials: dict[int, PartialFile] = {}
        self._part_of = {
            name: index for index in range(len(prepared.parts)) for name in prepared.places(index)
        }
        with ExitStack() as opened:
            for index, file in enumerate(prepared.files(output)):
                places = prepared.places(index)
                if index in standing:
                    units = planned(journal, _name(index), places)
                else:
                    size = prepared.parts[index].size
                    partial = PartialFile(file, size, journal, _name(index), fresh=fresh)
                    opened.callback(partial.discard if fresh else partial.close)
                    self._partials[index] = partial
                    units = partial.finished(places, listener)
                self.finished |= {name: unit.crc32 for name, unit in units.items()}
            opened.pop_all()

    def part(self, unit: str) -> PartialFile:
        """The file that a unit of work goes to; none of a published file is asked for."""
        return self._partials[self._part_of[unit]]

    def unfinished_parts(self) -> list[int]:
        """The numbers of the parts whose files are not published, from 0."""
        return list(self._partials)

    def publish(self, checksums: dict[str, int], *, overwrite: bool, listener: Listener) -> None:
        """Read all files back, then give them their names.

        Raises `VerificationError` where one does not hold what was meant, `OutputError` for a name that was
        taken meanwhile.
        """
        prepared = self._prepared
        formats = {tensor.name: tensor.format for tensor in prepared.plan.tensors}
        for index, partial in self._partials.items():
            partial.check_in_place()
            part = prepared.parts[index]
            verify(partial.path, part, prepared.export.tensors, formats, checksums, listener)
        for partial in self._partials.values():
            partial.publish(overwrite=overwrite)

    def discard(self) -> None:
        """Remove what is not published: nothing in it is worth resuming."""
        for partial in self._partials.values():
            partial.discard()

    def close(self) -> None:
        for partial in self._partials.values():
            partial.close()
