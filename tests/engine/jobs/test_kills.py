"""Killed by signal 9 at any moment and resumed: the file is that of an undisturbed run, byte for byte."""

import random

import pytest

from engine.api.errors import UserError
from engine.jobs.folder import list_jobs
from engine.resume import resume

MOMENTS = {"quantize": 25, "quantize and measure": 10, "evaluate": 10}
"""How often which run is killed."""


@pytest.mark.parametrize(
    ("place", "number"),
    [(kind, number) for kind, count in MOMENTS.items() for number in range(count)],
    indirect=["place"],
)
def test_killed_at_any_moment(bench, place, number):
    run = bench.run(place.kind)
    moment = run.chosen(MOMENTS[place.kind], seed=1)[number]
    fate = bench.zygote.run(place.order(request=place.request(), at=moment))
    assert fate.code == -9, fate.error
    assert fate.moments == run.moments[: moment + 1]
    place.go_on(fate)
    place.check()


def test_the_moments_are_of_all_stages(bench):
    run = bench.run("quantize")
    kinds = {run.moments[moment] for moment in run.chosen(MOMENTS["quantize"], seed=1)}
    for name in (
        "state.json",
        "job.json",
        "journal.jsonl",
        "pwrite o.gguf",
        "fsync",
        "torn",
        "mkdir",
        "event",
    ):
        assert any(name in kind for kind in kinds), name


@pytest.mark.parametrize("at", [3, 9, 16, 22, 27, 29, 34, 60, 150])
def test_killed_while_it_is_started_again(bench, place, at):
    """One of the two jobs goes on; the other one is given up, or finds that there is nothing left to do."""
    fate = bench.zygote.run(place.order(request=place.request(), at=120))
    assert fate.code == -9, fate.error
    old = place.job()
    fate = bench.zygote.run(place.order(job=old.id, restart=True, at=at))
    assert fate.code == -9, fate.error
    *others, last = list_jobs()
    assert {job.state for job in others} <= {"replaced", "interrupted"}
    assert last.state == "interrupted"
    resume(last.id)
    assert place.output.read_bytes() == bench.whole
    for job in others:
        with pytest.raises(UserError, match=r"started over in its place|exists already"):
            resume(job.id)
    assert place.output.read_bytes() == bench.whole
    assert [path.name for path in place.output.parent.iterdir()] == [place.output.name]


def test_killed_again_and_again_while_it_goes_on(bench, place):
    """Some resumes die while they look at what is finished, some get on."""
    chance = random.Random(2)
    order = place.order(request=place.request(), at=60)
    deaths = 0
    while (fate := bench.zygote.run(order)).code == -9:
        deaths += 1
        (job,) = list_jobs()
        order = place.order(job=job.id, at=chance.randrange(10, 60 + 5 * deaths))
    assert fate.code == 0, fate.error
    assert deaths >= 4
    place.check()


def test_killed_from_outside_at_any_time(bench, place):
    """Each time later, so that it ends on a slow machine, too."""
    chance, seconds, killed = random.Random(3), 0.05, 0
    order = place.order(request=place.request(), after=seconds)
    while (fate := bench.zygote.run(order)).code == -9:
        killed += 1
        seconds *= 1.3
        jobs = list_jobs()
        order = place.order(after=chance.uniform(seconds / 2, seconds))
        order.job, order.request = (jobs[0].id, "") if jobs else ("", place.request())
    assert fate.code == 0, fate.error
    assert killed
    place.check()
