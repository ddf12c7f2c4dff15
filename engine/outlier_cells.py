"""How tables on the terminal tell which input channels stand out."""

from collections.abc import Sequence

from engine.api.statistics import OUTLIER_RATIO

SHOWN_CHANNELS = 6

EXPLAINED = (
    "worst / median: the largest magnitude in the worst input channel over that in the median one; "
    f"from {OUTLIER_RATIO:g} times on a channel counts as an outlier."
)


def outlier_cells(ratio: float, channels: Sequence[int]) -> tuple[str, str]:
    """Of the columns "worst / median" and "outlier channels", the worst first."""
    more = len(channels) - SHOWN_CHANNELS
    first = ", ".join(map(str, channels[:SHOWN_CHANNELS]))
    return f"{ratio:.2f}", first + (f" and {more:,} more" if more > 0 else "")
