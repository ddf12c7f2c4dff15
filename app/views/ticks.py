"""Where an axis has its ticks, and their numbers."""

from collections.abc import Sequence
from math import ceil, floor, log10


def compact(value: float) -> str:
    """A tick's number, short: 0.02, 500, 20k, 3M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{suffix}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def step_of(span: float, most: int) -> float:
    """The least of 1, 2 and 5 times a power of ten that parts `span` into at most `most` steps."""
    if span <= 0 or most < 1:
        return 1.0
    rough = span / most
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of one step from `low` to `high`, both included: at most `most` steps."""
    step = step_of(high - low, most)
    return [place * step for place in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def whole_ticks(first: int, stop: int, most: int) -> range:
    """Whole numbers from `first` to before `stop`, multiples of one step, about `most` of them at most."""
    step = max(1, round(step_of(stop - first, most)))
    return range(ceil(first / step) * step, stop, step)


def powers(low: float, high: float) -> Sequence[float]:
    """Ticks of a logarithmic axis from `low` to `high` > 0: powers of ten, more where these are few."""
    first, last = floor(log10(low)), ceil(log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [value for value in found if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(found) >= 3:
            break
    skip = ceil(len(found) / 6)
    return found[:: max(1, skip)]
