"""The power fails: files are cut back to their last fsync, folders too, and the job goes on."""

import os
import random

import pytest

from engine.jobs.units import make_folder, sync_folder
from tests.engine.jobs.calls import Calls
from tests.engine.jobs.power import Disk

MOMENTS = {"quantize": 8, "quantize and measure": 5, "evaluate": 5}
"""How often in which run, spread over all of it."""


@pytest.mark.parametrize("what", ["only what was synced is left", "parts and rubbish are left"])
@pytest.mark.parametrize(
    ("place", "number"),
    [(kind, number) for kind, count in MOMENTS.items() for number in range(count)],
    indirect=["place"],
)
def test_power_lost_at_any_moment(bench, place, number, what):
    run = bench.run(place.kind)
    count = len(run.moments)
    moment = run.chosen(count, seed=4)[number * count // MOMENTS[place.kind]]
    power = "synced" if what.startswith("only") else str(number)
    fate = bench.zygote.run(place.order(request=place.request(), at=moment, power=power))
    assert fate.code == -9, fate.error
    place.go_on(fate)
    place.check()


def test_the_disk_forgets_what_was_not_synced(tmp_path):
    """Else the tests above would prove nothing."""
    kept, new = tmp_path / "kept", tmp_path / "new"
    kept.write_bytes(b"old")
    (tmp_path / "renamed").write_bytes(b"behind")
    disk = Disk([tmp_path])
    with Calls([tmp_path], lambda *_: None, disk.behind):
        for path, content in ((kept, b"and new"), (new, b"new")):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, content)
            os.fsync(descriptor)
            os.write(descriptor, b"and not synced")
            os.close(descriptor)
        (tmp_path / "folder").mkdir()
        (tmp_path / "renamed").replace(tmp_path / "name")
    disk.lose_power(None)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"kept": b"oldand new", "renamed": b"behind"}


@pytest.mark.parametrize("chance", [None, *map(random.Random, range(20))])
def test_the_disk_keeps_what_was_synced(tmp_path, chance):
    disk = Disk([tmp_path])
    with Calls([tmp_path], lambda *_: None, disk.behind):
        make_folder(tmp_path / "folder")
        descriptor = os.open(tmp_path / "folder" / "file", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"new")
        os.fsync(descriptor)
        os.close(descriptor)
        sync_folder(tmp_path / "folder")
    disk.lose_power(chance)
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"
