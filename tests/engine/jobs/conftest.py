"""One bench for all tests that kill jobs: making it takes longer than most of them."""

from collections.abc import Iterator

import pytest

from tests.engine.jobs.bench import Bench, Place
from tests.engine.jobs.zygote import hasten


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.zygote.close()


@pytest.fixture
def place(request, bench, tmp_path, monkeypatch) -> Place:
    """Where jobs of this test's process live, too; a parameter says what they do."""
    place = Place(bench, tmp_path, getattr(request, "param", "quantize"))
    hasten(monkeypatch.setattr)
    monkeypatch.setenv("XDG_STATE_HOME", str(place.state))
    return place
