"""What a measurement says: figures, and everything needed to trace them."""

from pydantic import BaseModel, Field


class Report(BaseModel):
    """Perplexity of a model on a text and, where a reference is given, how far its predictions are from that.

    The figures are those of the exact dequantized weights, computed in float32, summed in float64.
    """

    model: str = Field(description="path of the measured model")
    architecture: str | None
    model_sha256: str = Field(description="of the file, or of the list `sha256  name` of all weight files")
    reference: str | None = None
    reference_sha256: str | None = None
    text: str
    text_sha256: str

    protocol: str = Field(description='"llama.cpp" or "gptq": how the text is cut and what is scored')
    window: int = Field(description="tokens of a window")
    windows: int = Field(description="windows measured")
    tokens: int = Field(description="predictions scored: what the means and percentiles are taken over")

    perplexity: float = Field(description="exp of the mean negative log-likelihood in nats")
    perplexity_error: float = Field(description="standard error, perplexity times that of the mean")
    reference_perplexity: float | None = None
    reference_perplexity_error: float | None = None

    kl_mean: float | None = Field(
        None, description="mean KL divergence of the model from the reference, nats"
    )
    kl_error: float | None = Field(None, description="standard error of the mean")
    kl_median: float | None = None
    kl_p90: float | None = None
    kl_p99: float | None = Field(None, description="99th percentile, nats; linear between neighbours")
    kl_p999: float | None = None
    kl_max: float | None = None
    top1_agreement: float | None = Field(None, description="share of positions with the same likeliest token")

    device: str
    version: str = Field(description="of Bitwright")
    torch: str
    transformers: str
    seconds: float = Field(description="from opening the files to the last figure")
    notes: list[str] = Field(default_factory=list, description="sentences that the figures must be read with")
