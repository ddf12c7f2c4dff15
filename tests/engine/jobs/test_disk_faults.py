"""The disk refuses any one call of a job: one sentence, nothing lost, and the job goes on once it can."""

import errno
import os
import random
from collections.abc import Callable
from functools import cache

import pytest

from engine.api.errors import UserError
from engine.jobs.folder import list_jobs
from engine.resume import resume
from tests.engine.jobs.bench import Bench, Place
from tests.engine.jobs.calls import READING, Calls

FAULTS = {"quantize": 40, "evaluate": 12}
"""How often in which run."""

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

    folders = [place.state, place.output.parent, place.bench.model, place.bench.quantized]
    return Calls(folders, strike, reads=True), seen


def sentence(error: BaseException) -> str:
    said = str(error)
    assert isinstance(error, UserError)
    assert "\n" not in said
    assert said.endswith(".")
    assert "/" in said or "Job " in said, "it says where"
    return said


@pytest.fixture(scope="module")
def chosen(bench: Bench, tmp_path_factory) -> Callable[[str], list[tuple[int, str]]]:
    """The moments of an undisturbed run in this process: one of each kind of call, then others."""

    @cache
    def choose(kind: str) -> list[tuple[int, str]]:
        place = Place(bench, tmp_path_factory.mktemp("calls"), kind)
        counting, seen = failing(place, -1, 0)
        with pytest.MonkeyPatch.context() as patch, counting:
            patch.setenv("XDG_STATE_HOME", str(place.state))
            place.begin()
        names = list(enumerate(seen))
        random.Random(5).shuffle(names)
        first = {name: index for index, name in names}
        calls = [(index, name) for name, index in first.items()]
        return calls + [pair for pair in names if pair not in calls]

    return choose


@pytest.mark.parametrize(
    ("place", "number"),
    [(kind, number) for kind, count in FAULTS.items() for number in range(count)],
    indirect=["place"],
)
def test_any_call_fails_once(place, chosen, number):
    at, name = chosen(place.kind)[number]
    code = errno.EIO if name.split()[0] in READING else WRITING[number % len(WRITING)]
    faulty, _ = failing(place, at, code)
    try:
        with faulty:
            place.begin()
    except BaseException as error:
        said = sentence(error)
        for job in list_jobs():
            assert job.state in ("failed", "interrupted")
            assert job.state == "interrupted" or job.message == said
            resume(job.id)
        if not list_jobs():
            place.begin()
    place.check()
