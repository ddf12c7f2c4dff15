"""Which options of `bitwright plot` go together: one that would say nothing is refused."""

from typing import Literal

from engine.api.errors import FigureError
from engine.api.views import Source

Kind = Literal["histogram", "outliers", "error", "picture"]
What = Literal["value", "error", "code"]
PlotScope = Literal["tensor", "output", "input", "group", "token"]

LOSSY = ("error", "code")
"""What of a picture depends on a recipe."""

KINDS: dict[str, tuple[Kind, ...]] = {
    "role": ("outliers",),
    "metric": ("outliers",),
    "what": ("picture",),
    "scope": ("histogram", "error"),
    "index": ("histogram",),
}
"""Options that are for some kinds alone."""


def refuse_idle(
    kind: Kind,
    source: Source,
    *,
    activations: bool,
    tensor: bool,
    lossy: list[str],
    **given: str | int | None,
) -> None:
    """Raise a `FigureError` that names the first option that would be ignored.

    `activations`, `tensor`: whether they are named. `lossy`: options that name a recipe. `given`: those of
    `KINDS`, None where they are left out.
    """
    for option, kinds in KINDS.items():
        if given[option] is not None and kind not in kinds:
            raise FigureError(f"--{option} is for --kind {' and '.join(kinds)}: leave it out.")
    if source == "activations" and not activations:
        raise FigureError("Name the file of the activations with --activations.")
    if activations and source != "activations":
        raise FigureError("--activations is for --source activations: add it, or leave out the file.")
    if given["index"] is not None and given["scope"] in (None, "tensor"):
        raise FigureError("--index counts channels or groups: say which with --scope.")
    if tensor and given["role"] is not None:
        raise FigureError("--tensor names a role already: leave out --role.")
    if lossy and source == "activations" and kind not in ("error", "picture"):
        raise FigureError(f"Activations are not quantized: leave out {lossy[0]}.")
    if given["scope"] == "token" and (kind != "error" or source != "activations"):
        raise FigureError("--scope token is for errors of activations: add --source activations.")
    if lossy and kind == "outliers" and given["metric"] != "error":
        raise FigureError(f"Of outliers {lossy[0]} says what is lost: add --metric error, or leave it out.")
    if lossy and kind == "picture" and given["what"] not in LOSSY:
        raise FigureError(f"Of a picture {lossy[0]} is for --what error and code: add it, or leave it out.")
