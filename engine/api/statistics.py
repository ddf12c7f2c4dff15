"""Statistics of a tensor's weights, as data: what `bitwright stats` writes and the inspector shows."""

from typing import Literal, get_args

from pydantic import BaseModel, Field

from engine.api.activations import InputStatistics
from engine.api.model import Role

PERCENTS = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
SIGMAS = 6.0
"""Farther from the mean, in standard deviations, a weight counts as an outlier."""

LARGE = 6.0
"""LLM.int8()'s criterion: values of this magnitude and more (Dettmers et al. 2022, section 3.2)."""

OUTLIER_RATIO = 3.0
"""An input channel is an outlier whose largest magnitude is so many times that of the median channel."""


Estimator = Literal["min-max", "moving-average", "percentile", "mse", "entropy"]
"""How a range to clip activations to is found: see `engine.calibration.ranges`."""

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


class QuantizationError(BaseModel):
    """What a format makes of a tensor. Errors are those of the dequantized weights.

    Of weights that are stored as floats one by one nothing is said about codes.
    """

    format: str
    method: str = Field(description='"copied": the source\'s bytes; "": rounded one by one')
    squared: float = Field(description="sum of squared errors over sum of squared weights")
    mean_squared: float
    snr: float | None = Field(description="signal to noise in dB: -10 log10(squared); None: nothing is lost")
    cosine: float = Field(
        description="cosine similarity of the weights before and after; 0 where all became 0"
    )
    saturation: float | None = Field(
        description="share of weights stored as the lowest or highest code of the grid"
    )
    levels_used: int | None = Field(description="different codes that occur")
    levels: int | None = Field(description="codes that the grid has")
    worst_channel: int | None = Field(
        None, description="the input channel of which most is lost; None: nothing is, or it is no matrix"
    )
    worst_channel_error: float | None = Field(
        None, description="its squared errors over the mean channel's squared weights"
    )


class WeightStatistics(BaseModel):
    """One stored tensor. `shape` in NumPy's order; `count` of all its weights.

    `kurtosis`: fourth standardized moment (3 for a normal distribution; 0 where all weights are equal).
    Percentiles are those of `PERCENTS`. Of BF16 these and `beyond_sigmas` are exact; of other types weights
    with the same upper 16 bits as float32 are taken to be spread evenly, so percentiles may be off by 2^-7 of
    themselves. `outlier_channels`: input channels from the worst on, by abs-max over the median channel's;
    none where there is one axis alone.
    """

    tensor: str
    canonical: str = Field("", description='its name in GGUF, "" where there is none')
    role: Role
    block: int | None
    shape: tuple[int, ...]
    dtype: str
    count: int
    min: float
    max: float
    mean: float
    std: float
    absmax: float
    kurtosis: float
    zeros: float = Field(description="share of weights that are 0")
    percentiles: list[float]
    beyond_sigmas: int = Field(description="weights more than 6 standard deviations from the mean")
    large: int = Field(description="weights of magnitude 6 and more")
    outlier_channels: list[int]
    outlier_ratio: float = Field(description="the worst channel's abs-max over the median channel's")
    error: QuantizationError | None = None
    inputs: InputStatistics | None = None
