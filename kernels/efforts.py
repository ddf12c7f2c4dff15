"""How long the encoder of each type searches, by effort: "fast" or "best".

Chosen by trying: Gaussian, Laplace and heavy-tailed weights and two blocks of the sample model, with and
without importance. "fast" has up to 6 % more squared error than "best" (Q8_0 a third) and is several times as
fast as llama.cpp's encoder; "best" is no slower than that. But Q8_0 to Q4_0 and TQ are only rounded by
llama.cpp, at the speed of memory: searching, we take longer there. What was tried and left out:

- more rounds of refitting in step 1: 0.02 % of the squared error; more than three turns of step 3: 0.1 %;
- trials that all move both ends of the range in or out alike (affine): Q4_K 7 % worse at the same speed;
- symmetric types without the trials of negative factor, which put the extreme on the other end of the codes:
  Q3_K needs twice the time for 2 % more error; Q6_K, whose ends are alike, gains nothing by them;
- step 3 from units that cut the extreme's level off (0.85 and less of the unit): 0.05 % for twice the time;
- Q2_K without step 4: heavy-tailed weights 3 % worse than with a third of the trials;
- comparing more than 16 points for a vector of a lattice: 0.3 % at half the speed; comparing so few
  that "fast" is 9 times faster than llama.cpp (IQ1_M 2 points, IQ2_S 4): 15 % and 10 % more KL divergence.
"""

import numpy as np

from kernels.cpu.shapes import Effort

Trials = list[tuple[float, float]]


def _factors(least: float, most: float, count: int, *, opposite: float = 0, others: int = 0) -> Trials:
    """Steps from `least` to `most` times the covering one, and `others` that put the extreme on the opposite
    end of the codes, which is `opposite` times nearer to 0."""
    ahead = list(np.linspace(least, most, count))
    back = list(np.linspace(max(least, 0.8), min(most, 1.0), others) * -opposite) if others else []
    return [(factor, 0.0) for factor in ahead + back]


def _ends(span: float, *moves: float) -> Trials:
    """Both ends of the range moved in by so many steps, independently, of the `span` that the codes have."""
    return [((span - a - b) / span, a) for a in moves for b in moves]


def _spread(span: float, reach: float, count: int) -> Trials:
    return _ends(span, *np.linspace(-reach, reach, count))


_THREE = (-0.4, 0.1, 0.6)
_WIDE = (-0.6, 0.0, 0.5)
_FOUR = (-0.6, -0.1, 0.4, 0.9)
_IQ4 = 127 / 113

RESTORED = (0.7, 1.25)
"""Of what a block loses along itself: without importance, and with.

With importance by KL divergence: as IQ2_XS 1.25 leaves 2 % less than 1, which leaves 4 % less than 0.7.
Without it, where 1 leaves the least, squared error is kept in mind, too.
"""

_EFFORTS: dict[tuple[str, str], Effort] = {}


def _add(
    names: str,
    effort: str,
    trials: Trials,
    rounds: int,
    turns: int,
    *,
    reach: int = 0,
    looks: int = 1,
    covering: int = 0,
    neighbours: tuple[int, int] = (1, 1),
    restored: tuple[float, float] = RESTORED,
) -> None:
    starts = np.array(trials, np.float32).reshape(-1, 2)
    starts.flags.writeable = False  # kernels are compiled for read-only arrays
    for name in names.split():
        _EFFORTS[name, effort] = Effort(starts, rounds, turns, reach, looks, covering, neighbours, restored)


_add("Q8_0", "fast", _factors(1, 1, 1), 1, 0)
_add("Q8_0", "best", _factors(0.75, 1.15, 33), 1, 1, covering=1)
_add("Q5_0", "fast", _factors(0.78, 1.12, 9), 1, 1)
_add("Q5_0", "best", _factors(0.75, 1.15, 33, opposite=16 / 15, others=17), 1, 1, covering=1)
_add("Q4_0", "fast", _factors(0.83, 1.05, 6, opposite=8 / 7, others=4), 1, 1)
_add("Q4_0", "best", _factors(0.75, 1.15, 33, opposite=8 / 7, others=17), 1, 1, covering=1)
_add("Q3_K", "fast", _factors(0.78, 1, 3, opposite=4 / 3, others=2), 1, 0)
_add("Q3_K", "best", _factors(0.65, 1.15, 17, opposite=4 / 3, others=9), 1, 1, reach=2, covering=1)
_add("Q6_K", "fast", _factors(0.85, 1.1, 8), 1, 1, reach=1)
_add("Q6_K", "best", _factors(0.75, 1.15, 33), 1, 3, reach=2, covering=1)
_add("TQ1_0 TQ2_0", "fast", _factors(0.3, 1, 6), 1, 1, covering=1)
_add("TQ1_0 TQ2_0", "best", _factors(0.15, 1.05, 10), 2, 1, covering=1)

for _name, _span in (("Q4_1", 15), ("Q5_1", 31)):
    _add(_name, "fast", _ends(_span, *_FOUR), 1, 1)
    _add(_name, "best", _spread(_span, 1.8, 10), 1, 1, covering=1)
for _name, _span, _count, _moves in (("Q2_K", 3, 6, _THREE), ("Q4_K", 15, 8, _WIDE), ("Q5_K", 31, 8, _THREE)):
    _add(_name, "fast", _ends(_span, *_moves), 1, 1, reach=1, looks=2)
    _add(_name, "best", _spread(_span, 1.2, _count), 1, 2, reach=2, looks=2, covering=1)

_add("IQ4_NL IQ4_XS", "fast", _factors(0.75, 1.05, 4, opposite=_IQ4, others=3), 1, 1)
_add("IQ4_NL IQ4_XS", "best", _factors(0.6, 1.15, 24, opposite=_IQ4, others=24), 1, 3, reach=3, covering=1)
_add("MXFP4", "fast", [], 0, 0, reach=1)
_add("MXFP4", "best", [], 0, 0, reach=2)
_add("NVFP4", "fast", [], 0, 0, reach=5)
_add("NVFP4", "best", [], 0, 0, reach=10)

# The last trial of IQ2 and IQ3 puts the extreme on the smallest code: rows of one size have no better one.
_ONE_BIT = (RESTORED[0], 1.0)  # they lose a third: 1.25 leaves 7 % more KL divergence as IQ1_S
_add("IQ1_S", "fast", _factors(0.45, 1, 4), 0, 1, neighbours=(2, 16), restored=_ONE_BIT)
_add("IQ1_M", "fast", _factors(0.5, 0.95, 3), 0, 1, neighbours=(2, 8), restored=_ONE_BIT)
_add("IQ1_S IQ1_M", "best", _factors(0.3, 1.1, 12), 1, 2, reach=1, neighbours=(2, 16), restored=_ONE_BIT)
for _name, _ends_apart, _few in (
    ("IQ2_XXS", 43 / 8, (2, 8)),
    ("IQ2_XS", 43 / 8, (2, 12)),
    ("IQ2_S", 43 / 8, (2, 12)),
    ("IQ3_XXS", 62 / 4, (2, 8)),
    ("IQ3_S", 15 / 1, (1, 8)),
):
    _least = 0.4 if _name.startswith("IQ2") else 0.5
    _fast = [*_factors(_least, 1.1, 8), (_ends_apart, 0.0)]
    _best = [*_factors(_least - 0.1, 1.1, 16), (_ends_apart, 0.0)]
    _add(_name, "fast", _fast, 1, 1, reach=1, neighbours=_few)
    _add(_name, "best", _best, 1, 2, reach=2, neighbours=(2, 16))


def effort_of(name: str, effort: str, *, restored: bool = True) -> Effort:
    """What the kernel of a type is told: `effort` is "fast" or "best".

    `restored`: whether blocks are stored longer than the least squared error leaves them.
    """
    found = _EFFORTS[name, effort]
    return found if restored else found._replace(restored=(0.0, 0.0))
