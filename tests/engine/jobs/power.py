"""A disk that loses power: what was not synced is gone, or is there in part, or is rubbish.

Files keep what they had at their own last fsync; a folder keeps the names it had at its own last fsync.
"""

import os
import random
import shutil
from pathlib import Path

SECTOR = 512

Names = dict[str, tuple[int, bool]]
"""Of a folder: name -> (number of the file, whether it is a folder)."""


class Disk:
    """What of the files below `folders` would survive. `behind` is told of each call (see `calls.Calls`)."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._names: dict[Path, Names] = {}
        self._content: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        for top in folders:
            for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
                self._names[folder] = self._now(folder)
                for name, (number, inner) in self._names[folder].items():
                    if not inner:
                        self._hold(folder / name)
                        self._content[number] = (folder / name).read_bytes()

    def behind(self, call: str, path: Path) -> None:
        if path.is_dir():
            if call == "fsync":
                self._names[path] = self._now(path)
            return
        if not path.exists():
            return
        number = self._hold(path)
        if call == "fsync":
            self._content[number] = path.read_bytes()

    def lose_power(self, chance: random.Random | None) -> None:
        """Cut everything back to what was synced; with `chance` to some other state that a disk may be in."""
        kept = {folder: self._after(folder, chance) for folder in self._folders}
        for folder, tree in kept.items():
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            _write(folder, tree)

    def _after(self, folder: Path, chance: random.Random | None) -> dict:
        """name -> bytes, or the same for an inner folder."""
        now, then = self._now(folder), self._names.get(folder, {})
        names = now if chance and chance.random() < 0.5 else then
        tree: dict = {}
        for name, (number, inner) in names.items():
            if inner:
                tree[name] = self._after(folder / name, chance)
            else:
                tree[name] = self._bytes(number, chance)
        return tree

    def _bytes(self, number: int, chance: random.Random | None) -> bytes:
        then = self._content.get(number, b"")
        if chance is None or number not in self._held:  # a file that was never seen open
            return then
        size = os.fstat(self._held[number]).st_size
        now = os.pread(self._held[number], size, 0)
        size = chance.choice([len(then), len(now)])
        found = bytearray(then[:size].ljust(size, b"\0"))
        for start in range(0, size, SECTOR):
            part = slice(start, min(start + SECTOR, size))
            old, new = bytes(found[part]), now[part].ljust(part.stop - start, b"\0")
            changed = [index for index in range(len(old)) if old[index] != new[index]]
            if changed:
                first, last = changed[0], changed[-1] + 1
                rubbish = chance.randbytes(last - first)
                choices = [old[first:last], new[first:last], bytes(last - first), rubbish]
                found[start + first : start + last] = chance.choice(choices)
        return bytes(found)

    def _hold(self, path: Path) -> int:
        """The file's number, which from now on is not given to another file."""
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)
        return number

    def _now(self, folder: Path) -> Names:
        if not folder.is_dir():
            return {}
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}


def _write(folder: Path, tree: dict) -> None:
    for name, content in tree.items():
        if isinstance(content, dict):
            (folder / name).mkdir(mode=0o700)
            _write(folder / name, content)
        else:
            (folder / name).write_bytes(content)
