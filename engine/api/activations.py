"""Statistics of activations, as data: what was run through the model, and where the largest values were."""

from typing import Literal

from pydantic import BaseModel, Field

FEW_TOKENS = 500
"""With fewer of them single channels depend on chance."""


class Ran(BaseModel):
    """What went through `model` (a path): `windows` of `length` tokens of `files`, or the `prompt` as it is.

    `pieces`: the texts of the prompt's tokens. `seed` chose the windows, where the files hold more
    (`windows_there`), and the tokens whose values percentiles are of. `notes`: what was left out. `state`:
    the model's files then, as in `ModelSummary`.
    """

    model: str
    files: list[str]
    prompt: str = ""
    pieces: list[str] = []
    windows: int = Field(ge=1)
    windows_there: int = Field(ge=1)
    length: int = Field(ge=1)
    seed: int
    notes: list[str] = []
    state: str = ""

    @property
    def tokens(self) -> int:
        return self.windows * self.length

    @property
    def caution(self) -> str:
        """What to keep in mind where few tokens were run, in one sentence; "" where there were enough."""
        if self.tokens >= FEW_TOKENS:
            return ""
        tokens = f"{self.tokens:,} {'token' if self.tokens == 1 else 'tokens'}"
        return f"Of {tokens}: single channels depend on chance."

    @property
    def in_short(self) -> str:
        """The text's names without folders, or how the prompt begins."""
        if self.prompt:
            line = " ".join(self.prompt.split())
            return f"“{line[:60]}…”" if len(line) > 60 else f"“{line}”"
        names = [file.replace("\\", "/").rsplit("/", 1)[-1] for file in self.files]
        return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")

    def __str__(self) -> str:
        """In one sentence."""
        if self.prompt:
            return f"a prompt of {self.length:,} {'token' if self.length == 1 else 'tokens'}"
        chosen = f" ({self.windows_there:,} are there, chosen with seed {self.seed})"
        return (
            f"{self.windows:,} {'window' if self.windows == 1 else 'windows'} of {self.length:,} tokens"
            f"{chosen if self.windows < self.windows_there else ''} of {', '.join(self.files)}"
        )


class Peak(BaseModel):
    """One of the largest values of a layer: that of `channel` at a token.

    `position` in its `window`, both from 0; `token` is its text. Of a token whose place in the text cannot be
    seen (behind an unusual router) both are -1 and `token` is "".
    """

    window: int = Field(ge=-1)
    position: int = Field(ge=-1)
    token: str
    channel: int = Field(ge=0)
    value: float


class HeadRange(BaseModel):
    """Least and largest value of a head of the cache; keys behind the rotary embedding."""

    of: Literal["key", "value"]
    head: int
    min: float
    max: float


class InputStatistics(BaseModel):
    """What reaches one matrix. `ran` says on what; `rows` of so many tokens. Percentiles as in `PERCENTS`.

    `beyond`: the largest share of tokens in which one channel (`beyond_channel`) is of magnitude `LARGE` or
    more. `peaks`: the largest values, largest first. `cache`: of what the matrix makes for it, by head.
    """

    ran: str
    rows: int
    min: float
    max: float
    absmax: float
    mean_square: float
    percentiles: list[float]
    outlier_channels: list[int]
    outlier_ratio: float
    beyond: float
    beyond_channel: int
    peaks: list[Peak]
    cache: list[HeadRange]
