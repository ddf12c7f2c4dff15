"""Cancelled 200 times, quickly, wherever: nothing piles up, and the file is the undisturbed one."""

import random
import threading
from pathlib import Path

from engine.api.jobs import Stopped
from engine.api.outputs import partial_path
from engine.api.progress import Progress
from engine.jobs.folder import list_jobs
from engine.quantize import quantize
from engine.resume import resume

CANCELS = 200


def test_200_quick_cancels(bench, place):
    """Sometimes the job is resumed, sometimes begun anew; now and then it gets to its end."""
    chance = random.Random(6)
    events = 0

    def listen(event: Progress) -> None:
        nonlocal events
        events -= 1
        if events < 0:
            raise KeyboardInterrupt

    cancelled = finished = 0
    descriptors = threads = 0
    while cancelled < CANCELS:
        last = list_jobs()[-1] if cancelled else None
        events = chance.choice([0, 0, 1, 1, 2, 2, chance.randrange(30), chance.randrange(90)])
        ended = ""
        try:
            if last is None or last.state == "done" or chance.random() < 0.1:
                quantize(place.asked(overwrite=True), listen)
            else:
                assert (last.state, last.message) == ("interrupted", "stopped on request")
                resume(last.id, listen)
            assert place.output.read_bytes() == bench.whole
            place.output.unlink()
            finished += 1
        except Stopped as stopped:
            cancelled, ended = cancelled + 1, stopped.job
        assert (ended == list_jobs()[-1].id) == bool(ended)
        assert not place.output.exists()
        if cancelled == 20:
            descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    assert finished, "else the numbers above are badly chosen"
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    assert threading.active_count() <= threads
    if (job := list_jobs()[-1]).state != "done":
        resume(job.id)
    assert place.output.read_bytes() == bench.whole
    assert not partial_path(place.output).exists()
    assert {job.state for job in list_jobs()} == {"done", "replaced"}
