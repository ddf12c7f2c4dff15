"""The power fails: files are cut back to their last fsync, folders too, and the job goes on."""

import pytest

from tests.engine.jobs.bench import KINDS

MOMENTS = 10
"""Spread over each kind of run, for each of the two ways."""


@pytest.mark.parametrize("number", range(MOMENTS))
@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.parametrize("what", ["only what was synced is left", "parts and rubbish are left"])
def test_power_lost_at_any_moment(bench, place, number, what):
    run = bench.run(place.kind)
    moment = run.chosen(len(run.moments), seed=4)[number * len(run.moments) // MOMENTS]
    power = "synced" if what.startswith("only") else str(number)
    fate = bench.zygote.run(place.order(request=place.request(), at=moment, power=power))
    assert fate.code == -9, fate.error
    place.go_on(fate)
    place.check()
