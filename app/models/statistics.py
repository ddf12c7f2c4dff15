"""The statistics of a tensor in words and figures: as lines of the inspector, and as text to copy."""

from dataclasses import dataclass

from app.models.importance import short
from app.plain import printable
from engine.api.activations import InputStatistics, Peak
from engine.api.statistics import LARGE, PERCENTS, SIGMAS, QuantizationError, WeightStatistics
from engine.api.units import digits

MOST_CHANNELS = 8
"""Channels that a line names."""

MOST_PLACES, MOST_HEADS = 3, 4
"""Tokens, and heads of the cache, that a line names."""


@dataclass(frozen=True)
class Fact:
    """`exact` has all digits; `help` says what it is, where the name does not."""

    name: str
    text: str
    exact: str
    help: str = ""

    @property
    def tip(self) -> str:
        return f"{self.help}\n{self.exact}" if self.help else self.exact


def facts_of(of: WeightStatistics) -> list[Fact]:
    """Those of the weights, of what the recipe makes of them, of what reaches them, as far as known."""
    facts = [
        _figure("Min", of.min),
        _figure("Max", of.max),
        _figure("Mean", of.mean),
        _figure("σ", of.std, "Standard deviation"),
        _figure("Abs-max", of.absmax, "Largest magnitude"),
        _figure(
            "Kurtosis",
            of.kurtosis,
            "Fourth standardized moment: 3 for a normal distribution, more with outliers",
        ),
        _share("Zeros", of.zeros, "Share of weights that are 0"),
        *_percentiles(of.percentiles),
        _count(
            f"Beyond {SIGMAS:g} σ",
            of.beyond_sigmas,
            of.count,
            f"Weights more than {SIGMAS:g} σ from the mean",
        ),
        _count(
            f"≥ {LARGE:g}",
            of.large,
            of.count,
            f"Weights of magnitude {LARGE:g} and more (LLM.int8()'s criterion)",
        ),
        Fact(
            "Outlier channels",
            _channels(of.outlier_channels),
            ";".join(map(str, of.outlier_channels)) or "none",
            "Input channels far above the median one, the worst first",
        ),
        _figure(
            "Worst channel", of.outlier_ratio, "Its abs-max over that of the median channel", " × median"
        ),
    ]
    facts += _error_facts(of.error) if of.error else []
    return facts + (_input_facts(of.inputs) if of.inputs else [])


def _percentiles(values: list[float]) -> list[Fact]:
    """The outermost pair first, the median last."""
    facts = []
    for place in range(len(PERCENTS) // 2):
        ends = values[place], values[-1 - place]
        names = f"{PERCENTS[place]:g}, {PERCENTS[-1 - place]:g} %"
        exact = " and ".join(map(repr, ends))
        facts.append(Fact(names, ", ".join(map(short, ends)), exact, "Percentiles of the weights"))
    return [*facts, _figure("Median", values[len(PERCENTS) // 2])]


def _error_facts(error: QuantizationError) -> list[Fact]:
    """Of weights that are stored one by one there is nothing to say of codes."""
    how = ", ".join(filter(None, (error.format, error.method)))
    share = 100 * error.squared
    facts = [
        Fact("As", how, how, "What the recipe makes of it"),
        Fact(
            "Error", f"{digits(share)} %", f"{share!r} %", "Sum of squared errors over sum of squared weights"
        ),
        _figure("Mean squared", error.mean_squared, "Mean squared error of a weight"),
        Fact(
            "Cosine", f"{error.cosine:.6f}", repr(error.cosine), "Similarity of the weights before and after"
        ),
    ]
    if error.snr is not None:
        facts.insert(2, _figure("SNR", error.snr, "Signal to noise", " dB"))
    if error.worst_channel is not None and error.worst_channel_error is not None:
        share = 100 * error.worst_channel_error
        said = f"{digits(share)} % in channel {error.worst_channel:,}"
        lost = "Squared error of the input channel that loses most, over the mean channel's squared weights"
        facts.append(Fact("Worst channel error", said, f"{share!r} % in channel {error.worst_channel}", lost))
    if error.saturation is not None:
        ends = "Share of weights stored as the lowest or highest code of the grid"
        facts.append(_share("Saturation", error.saturation, ends))
    if error.levels is not None and error.levels_used is not None:
        used = f"{error.levels_used:,} of {error.levels:,}"
        facts.append(Fact("Levels used", used, used, "Different codes that occur"))
    return facts


def _input_facts(inputs: InputStatistics) -> list[Fact]:
    ends = f"{short(inputs.min)} to {short(inputs.max)}"
    facts = [
        Fact("Inputs on", inputs.ran, f"{inputs.ran}\n{inputs.rows:,} tokens reached it"),
        Fact("Input range", ends, f"{inputs.min!r} to {inputs.max!r}", "Least and largest activation"),
        _figure("Input square", inputs.mean_square, "Mean square of the activations"),
        Fact(
            "Input outliers",
            _channels(inputs.outlier_channels),
            ";".join(map(str, inputs.outlier_channels)) or "none",
            "Input channels whose activations are far above the median one's, the worst first",
        ),
        _figure(
            "Worst input",
            inputs.outlier_ratio,
            "Its largest activation over that of the median channel",
            " × median",
        ),
        _share(
            f"Inputs ≥ {LARGE:g}",
            inputs.beyond,
            f"Share of tokens in which channel {inputs.beyond_channel} is of magnitude {LARGE:g} or more",
        ),
        Fact(
            "Largest at",
            _places(inputs.peaks),
            "\n".join(map(_place_of, inputs.peaks)),
            "The tokens with the largest activations: the same ones in many layers are attention sinks",
        ),
    ]
    for of in ("key", "value"):
        heads = [head for head in inputs.cache if head.of == of]
        if heads:
            said = [f"{head.head}: {short(head.min)} to {short(head.max)}" for head in heads]
            exact = "\n".join(f"head {head.head}: {head.min!r} to {head.max!r}" for head in heads)
            more = f" and {len(said) - MOST_HEADS:,} more" if len(said) > MOST_HEADS else ""
            help_ = f"Range of the {of}s that the cache keeps, by head"
            facts.append(Fact(f"Cache, {of}s", "; ".join(said[:MOST_HEADS]) + more, exact, help_))
    return facts


def _places(peaks: list[Peak]) -> str:
    """The tokens of the largest values, each once."""
    places = dict.fromkeys(f"“{printable(peak.token)}” ({peak.position:,})" for peak in peaks)
    return ", ".join(list(places)[:MOST_PLACES])


def _place_of(peak: Peak) -> str:
    where = f"“{printable(peak.token)}”, token {peak.position:,} of window {peak.window:,}"
    return f"{peak.value!r} in channel {peak.channel} at {where}"


def text_of(of: WeightStatistics) -> str:
    """What the inspector shows, with all digits, to paste."""
    head = [("Tensor", of.tensor), ("In GGUF", of.canonical), ("Role", of.role.value)]
    head += [("Block", "" if of.block is None else str(of.block))]
    head += [("Shape", " × ".join(map(str, of.shape))), ("Type", of.dtype), ("Weights", f"{of.count}")]
    lines = [(name, text) for name, text in head if text] + [(fact.name, fact.exact) for fact in facts_of(of)]
    return "".join(f"{name}: {text}\n" for name, text in lines)


def _figure(name: str, value: float, help_: str = "", unit: str = "") -> Fact:
    return Fact(name, short(value) + unit, f"{value!r}{unit}", help_)


def _share(name: str, share: float, help_: str) -> Fact:
    return Fact(name, f"{digits(100 * share)} %", f"{100 * share!r} %", help_)


def _count(name: str, count: int, total: int, help_: str) -> Fact:
    return Fact(name, f"{count:,}", f"{count} of {total}", help_)


def _channels(channels: list[int]) -> str:
    if not channels:
        return "none"
    more = len(channels) - MOST_CHANNELS
    said = ", ".join(map(str, channels[:MOST_CHANNELS]))
    return f"{said} and {more:,} more" if more > 0 else said
