"""The recipe: what to do with each tensor of a model. JSON, made to be read and kept under version control.

    {"version": 1,
     "rules": [{"match": "down", "blocks": "0-3,28-31", "method": "search", "format": "Q6_K"},
               {"match": "attn_[qk]\\\\.", "format": "Q5_K"}],
     "default": {"method": "search", "format": "Q4_K"},
     "output": {"container": "gguf"}}

`match` is the name of a role ("v", "down", "embedding", …) or else a regular expression, searched in the
source's tensor name and in the canonical (GGUF) name. The last rule that matches a tensor wins.
"""

import difflib
import json
import re
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_METHOD, FORMATS, METHODS
from engine.api.model import Role

ROLES = frozenset(role.value for role in Role)
BLOCKS = re.compile(r"\d{1,6}(-(\d{1,6})?)?(,\d{1,6}(-(\d{1,6})?)?)*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Choice(_Strict):
    """How one tensor is stored: `method` chooses the codes of `format`; `params` are the method's own."""

    method: str = DEFAULT_METHOD
    format: str
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        return _known("format", name.upper(), FORMATS)

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        return _known("method", name.lower(), METHODS)

    @field_validator("params")
    @classmethod
    def _known_params(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if params:
            raise ValueError(
                f"the method {info.data.get('method')!r} has no parameter {next(iter(params))!r}"
            )
        return params


class Rule(Choice):
    """A `Choice` for the tensors that `match` and `blocks` ("0-3,7,28-": transformer blocks) select.

    `pinned` asks programs that change recipes (the window) to leave these tensors as they are; what is
    written does not depend on it.
    """

    match: str
    blocks: str | None = None
    pinned: Literal[True] | None = None

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if not pattern:
            raise ValueError("match is empty; name a role or write a regular expression")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"match {pattern!r} is no regular expression: {error}") from None
        return pattern

    @field_validator("blocks")
    @classmethod
    def _ranges(cls, blocks: str | None) -> str | None:
        if blocks is not None and not BLOCKS.fullmatch(blocks):
            raise ValueError(f"blocks {blocks!r} is not a list of blocks such as '0-3,7,28-'")
        for part in (blocks or "").split(","):
            first, _, last = part.partition("-")
            if last and int(last) < int(first):
                raise ValueError(f"blocks {part!r} runs backwards; write '{last}-{first}'")
        return blocks

    def matches(self, names: tuple[str, ...], role: Role, block: int | None) -> bool:
        """Whether the rule selects a tensor known under `names` (source and canonical)."""
        if self.blocks is not None and (block is None or not _contains(self.blocks, block)):
            return False
        if self.match in ROLES:
            return self.match == role
        return any(re.search(self.match, name) for name in names)


class CalibrationText(_Strict):
    """The text that statistics are gathered from: `windows` of `length` tokens, drawn with `seed`."""

    files: list[str] = Field(default_factory=list)
    windows: int = Field(128, ge=1)
    length: int = Field(512, ge=8)
    seed: int = 0


class Output(_Strict):
    """What is written. `options` belong to the container; GGUF has none yet."""

    container: Literal["gguf"] = "gguf"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _none_known(cls, options: dict[str, Any]) -> dict[str, Any]:
        if options:
            raise ValueError(f"the gguf container has no option {next(iter(options))!r}")
        return options


class Recipe(_Strict):
    """What to do with each tensor. See the module's text for the JSON."""

    version: Literal[1] = 1
    calibration: CalibrationText | None = None
    imatrix: str | None = None
    rules: list[Rule] = Field(default_factory=list)
    default: Choice
    output: Output = Field(default_factory=Output)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"


def parse_recipe(text: str, where: str) -> Recipe:
    """The recipe in `text`. `where` names its place in the sentence of a `RecipeError`."""
    if not text.strip():
        raise RecipeError(f"{where}: the recipe is empty.")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}: not valid JSON: {error.msg} in line {error.lineno}.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets without end
        raise RecipeError(
            f"{where}: not a recipe: its JSON is nested too deeply or its numbers are too long."
        ) from None
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: a recipe is a JSON object with 'default' and 'rules'.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        sentence = _sentence(error, content)
        raise RecipeError(f"{where}: {sentence if sentence.endswith('?') else sentence + '.'}") from None


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file. Files that it names are looked for beside it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: the recipe is not UTF-8 text.") from None
    recipe = parse_recipe(text, str(path))
    if recipe.imatrix:
        recipe = recipe.model_copy(update={"imatrix": str((path.parent / recipe.imatrix).absolute())})
    return recipe


def block_ranges(blocks: list[int]) -> str:
    """Sorted block numbers as a rule's `blocks`: [0, 1, 2, 5] -> "0-2,5"."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _contains(blocks: str, block: int) -> bool:
    return any(first <= block <= last for first, last in _spans(blocks))


@lru_cache(maxsize=1024)
def _spans(blocks: str) -> tuple[tuple[int, float], ...]:
    """The first and last block of each range: "0-3,28-" -> (0, 3), (28, inf)."""
    spans = []
    for part in blocks.split(","):
        first, dash, last = part.partition("-")
        spans.append((int(first), int(last) if last else inf if dash else int(first)))
    return tuple(spans)


def _known(kind: str, name: str, known: dict[str, Any]) -> str:
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")


def _sentence(error: ValidationError, content: dict[str, Any]) -> str:
    """The first fault of a recipe as one sentence that names its rule."""
    faults = error.errors()
    # A misspelt key explains why another one is missing.
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path = list(fault["loc"])
    where = ""
    known: list[str] = list(Recipe.model_fields)
    if path[:1] == ["rules"] and len(path) > 1:
        index = int(path[1])
        rule = content["rules"][index]
        shown = f" ({rule['match']!r})" if isinstance(rule, dict) and rule.get("match") else ""
        where, path, known = f"rule {index + 1}{shown}: ", path[2:], list(Rule.model_fields)
    elif path[:1] == ["default"] and len(path) > 1:
        where, path, known = "default: ", path[1:], list(Choice.model_fields)
    key = ".".join(str(part) for part in path)
    match fault["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(str(path[-1]), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            return f"{where}unknown key {key!r}; {hint}"
        case "missing":
            return f"{where}{key!r} is missing"
        case "value_error":
            return f"{where}{fault['ctx']['error']}"
        case "string_type":
            return f"{where}{key} must be text in quotes"
        case "model_type" | "model_attributes_type":
            return f"{where}{key or 'it'} must be an object in braces"
        case _:
            text = fault["msg"][0].lower() + fault["msg"][1:]
            return f"{where}{key or 'recipe'}: {text}"
