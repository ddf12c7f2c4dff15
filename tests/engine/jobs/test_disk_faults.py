"""The disk refuses any one call of a job: one sentence, nothing lost, and the job goes on once it can."""

import errno
import os
import random
from collections.abc import Callable

import pytest

from engine.api.errors import UserError
from engine.jobs.folder import list_jobs
from engine.quantize import quantize
from engine.resume import resume
from tests.engine.jobs.bench import Bench, Place
from tests.engine.jobs.calls import READING, Calls

FAULTS = 40
WRITING = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)


def failing(place: Place, at: int, code: int) -> tuple[Calls, list[str]]:
    """The job's calls, of which the one numbered `at` fails, behind a part where it is a write."""
    seen: list[str] = []

    def strike(name: str, tear: Callable[[], None] | None) -> None:
        seen.append(name)
        if len(seen) - 1 == at:
            if tear:
                tear()
            raise OSError(code, os.strerror(code))

    folders = [place.state, place.output.parent, place.bench.model]
    return Calls(folders, strike, reads=True), seen


def sentence(error: BaseException) -> str:
    said = str(error)
    assert isinstance(error, UserError)
    assert "\n" not in said
    assert said.endswith(".")
    assert "/" in said or "Job " in said, "it says where"
    return said


@pytest.fixture(scope="module")
def calls(bench: Bench, tmp_path_factory) -> list[tuple[int, str]]:
    """The chosen moments of an undisturbed run in this process: one of each kind, then others."""
    with pytest.MonkeyPatch.context() as patch:
        place = Place(bench, tmp_path_factory.mktemp("calls"), "quantize")
        patch.setenv("XDG_STATE_HOME", str(place.state))
        counting, seen = failing(place, -1, 0)
        with counting:
            quantize(place.asked())
    chance, names = random.Random(5), list(enumerate(seen))
    chance.shuffle(names)
    first = {name: index for index, name in names}
    chosen = [(index, name) for name, index in first.items()]
    return chosen + [pair for pair in names if pair not in chosen]


@pytest.mark.parametrize("number", range(FAULTS))
def test_any_call_fails_once(bench, place, calls, number):
    at, name = calls[number]
    code = errno.EIO if name.split()[0] in READING else WRITING[number % len(WRITING)]
    faulty, _ = failing(place, at, code)
    request = place.asked()
    try:
        with faulty:
            quantize(request)
    except BaseException as error:
        said = sentence(error)
        for job in list_jobs():
            assert job.state in ("failed", "interrupted")
            assert job.state == "interrupted" or job.message == said
            resume(job.id)
        if not list_jobs():
            quantize(request)
    place.check()
