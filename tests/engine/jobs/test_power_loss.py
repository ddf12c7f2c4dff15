"""The power fails: files are cut back to their last fsync, folders too, and the job goes on."""

import pytest

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
