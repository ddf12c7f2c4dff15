"""One bench for all tests that kill jobs: making it takes longer than most of them, importing it, too."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.jobs.bench import Bench, Place


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Iterator["Bench"]:
    from tests.engine.jobs.bench import Bench

    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.zygote.close()


@pytest.fixture
def place(request, bench, tmp_path, monkeypatch) -> "Place":
    """Where jobs of this test's process live, too; a parameter says what they do."""
    from tests.engine.jobs.bench import Place
    from tests.engine.jobs.zygote import hasten

    place = Place(bench, tmp_path, getattr(request, "param", "quantize"))
    hasten(monkeypatch.setattr)
    monkeypatch.setenv("XDG_STATE_HOME", str(place.state))
    return place
