"""The recipe: what to do with each tensor of a model. JSON, made to be read and kept under version control.

    {"version": 1,
     "rules": [{"match": "down", "blocks": "0-3,28-31", "method": "search", "format": "Q6_K"},
               {"match": "attn_[qk]\\\\.", "format": "Q5_K"}],
     "default": {"method": "search", "format": "Q4_K"},
     "effort": "best",
     "output": {"container": "gguf"}}

`match` is the name of a role ("v", "down", "embedding", …) or else a regular expression, searched in the
source's tensor name and in the canonical (GGUF) name. The last rule that matches a tensor wins.
"""

import difflib
import json
import re
import stat
import time
from bisect import bisect_right
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from engine.api.errors import RecipeError
from engine.api.formats import DEFAULT_EFFORT, DEFAULT_METHOD, EFFORTS, FORMATS, METHODS
from engine.api.metadata import Edit, check_edits
from engine.api.model import Role
from engine.api.units import size
from engine.api.wording import demand, named, shown

ROLES = frozenset(role.value for role in Role)
RANGE = re.compile(r"\d{1,6}(-(\d{1,6})?)?")
LINEAR = re.compile(r"[^*+?{|()]*")
"""Patterns without repetition or choice: a search for them cannot take long."""

PATIENCE, PATIENCE_PER_NAME = 0.5, 5e-5
"""Seconds of work for searching names with one pattern, at most; one name takes a few microseconds."""

PATTERN_LIMIT = 2000
BLOCKS_LIMIT = 100_000
LEAST_FILE = 1_000_000
FILE_LIMIT = 64 << 20  # a rule for each tensor of the largest mixtures of experts takes 10 MB


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
                f"the method {info.data.get('method')!r} has no parameter {shown(next(iter(params)))}"
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
    _option: str = PrivateAttr("")

    @property
    def option(self) -> str:
        """The option of the command line that the rule came from, for sentences; not part of a recipe."""
        return self._option

    def from_option(self, option: str) -> "Rule":
        self._option = option
        return self

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if not pattern:
            raise ValueError("match is empty; name a role or write a regular expression")
        if len(pattern) > PATTERN_LIMIT:
            raise ValueError(f"match has {len(pattern)} letters, where {PATTERN_LIMIT} are allowed")
        try:
            re.compile(pattern)
            if not LINEAR.fullmatch(pattern):
                _pattern(pattern)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"match {shown(pattern)} is no regular expression: {named(str(error))}"
            ) from None
        return pattern

    @field_validator("blocks")
    @classmethod
    def _ranges(cls, blocks: str | None) -> str | None:
        if blocks is None:
            return None
        parts = blocks.split(",")
        if len(blocks) > BLOCKS_LIMIT or not all(RANGE.fullmatch(part) for part in parts):
            raise ValueError(f"blocks {shown(blocks)} is not a list of blocks such as '0-3,7,28-'")
        for part in parts:
            first, _, last = part.partition("-")
            if last and int(last) < int(first):
                raise ValueError(f"blocks {part!r} runs backwards; write '{last}-{first}'")
        return blocks

    def matches(self, names: tuple[str, ...], role: Role, block: int | None) -> bool:
        """Whether the rule selects a tensor known under `names` (source and canonical).

        Raises RecipeError for a regular expression that takes too long.
        """
        if self.blocks is not None and (block is None or not _contains(self.blocks, block)):
            return False
        if self.match in ROLES:
            return self.match == role
        return _is_in(self.match, names)


class CalibrationText(_Strict):
    """The text that statistics are gathered from: `windows` of `length` tokens, drawn with `seed`."""

    files: Annotated[list[str], FailFast()] = Field(default_factory=list)
    windows: int = Field(128, ge=1)
    length: int = Field(512, ge=8)
    seed: int = 0


class GgufOptions(_Strict):
    """How a GGUF output is written.

    `split_max_size`: bytes of one file, more go to further files. `metadata`: keys, or plain names ("author")
    for them, and their new values, "" to leave one out. `pre_tokenizer`: llama.cpp's
    name for how byte-level BPE splits text, instead of the recognised one.
    """

    split_max_size: int | None = None
    metadata: dict[str, Edit] = Field(default_factory=dict, exclude_if=lambda edits: not edits)
    pre_tokenizer: str | None = None

    @field_validator("split_max_size")
    @classmethod
    def _large_enough(cls, most: int | None) -> int | None:
        if most is not None and most < LEAST_FILE:
            raise ValueError(f"split_max_size: a file has at least {size(LEAST_FILE)} ({LEAST_FILE:,} bytes)")
        return most

    @field_validator("metadata")
    @classmethod
    def _possible(cls, edits: dict[str, Edit]) -> dict[str, Edit]:
        try:
            check_edits(edits)
        except RecipeError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return edits


class Output(_Strict):
    """What is written. `options` belong to the container."""

    container: Literal["gguf"] = "gguf"
    options: GgufOptions = Field(default_factory=GgufOptions)


class Recipe(_Strict):
    """What to do with each tensor. See the module's text for the JSON.

    `effort` says how long encoders search, "fast" or "best".
    """

    version: Literal[1] = 1
    calibration: CalibrationText | None = None
    imatrix: str | None = None
    effort: str = DEFAULT_EFFORT
    rules: Annotated[list[Rule], FailFast()] = Field(default_factory=list)
    default: Choice
    output: Output = Field(default_factory=Output)

    @field_validator("effort")
    @classmethod
    def _known_effort(cls, name: str) -> str:
        return _known("effort", name.lower(), EFFORTS)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"

    def with_options(self, **options: object) -> "Recipe":
        """Itself with these options of its output, whose values are not checked."""
        changed = self.output.options.model_copy(update=options)
        return self.model_copy(update={"output": self.output.model_copy(update={"options": changed})})


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
    if "\\ud" in text.lower() and not _is_text(content):
        raise RecipeError(f"{where}: a text in it holds half a character (\\ud800 or the like).")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        sentence = _sentence(error, content)
        raise RecipeError(f"{where}: {sentence if sentence.endswith('?') else sentence + '.'}") from None


def _is_text(content: object) -> bool:
    """Whether all texts in JSON's content can be written again."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file. Files that it names are looked for beside it."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # reading a pipe would wait for its writer
            raise RecipeError(f"{path}: the recipe cannot be read: it is not a plain file.")
        if state.st_size > FILE_LIMIT:
            raise RecipeError(f"{path}: has {state.st_size:,} bytes; no recipe is so large.")
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


class _Pattern:
    """A regular expression with repetition or choice, to search names with.

    Some of these take time that doubles with every letter of a name, and Python's own `re` cannot be broken
    off. So a search is given `PATIENCE`, and a little more with each name.
    """

    def __init__(self, text: str) -> None:
        import regex  # type: ignore[import-untyped] # here: it takes 20 ms, and few recipes need it

        self._text, self._left = text, PATIENCE
        try:
            self._search = regex.compile(text, cache_pattern=False).search
        except regex.error as error:
            raise ValueError(str(error)) from None

    def is_in(self, names: tuple[str, ...]) -> bool:
        """Whether the pattern is found in one of the names. Raises RecipeError if it takes too long."""
        start, left = time.thread_time(), min(self._left + PATIENCE_PER_NAME * len(names), PATIENCE)
        try:
            wait = max(left, PATIENCE_PER_NAME)
            # Concurrent: the window's thread must not stand still meanwhile.
            return any(self._search(name, timeout=wait, concurrent=True) for name in names)
        except TimeoutError:
            raise RecipeError(
                f"The regular expression {shown(self._text)} in a rule takes too long; make it simpler."
            ) from None
        finally:
            self._left = left - (time.thread_time() - start)


_pattern = lru_cache(maxsize=64)(_Pattern)  # rules are searched for one after the other


def _is_in(pattern: str, names: tuple[str, ...]) -> bool:
    """Whether the regular expression is found in one of the names."""
    if LINEAR.fullmatch(pattern):
        return any(re.search(pattern, name) for name in names)
    return _pattern(pattern).is_in(names)


def _contains(blocks: str, block: int) -> bool:
    firsts, lasts = _spans(blocks)
    place = bisect_right(firsts, block) - 1
    return place >= 0 and block <= lasts[place]


@lru_cache(maxsize=1024)
def _spans(blocks: str) -> tuple[list[int], list[float]]:
    """The first and last blocks of the ranges, rising and apart: "28-,0-3" -> [0, 28], [3, inf]."""
    ranges = set()
    for part in blocks.split(","):
        first, dash, last = part.partition("-")
        ranges.add((int(first), int(last) if last else inf if dash else int(first)))
    firsts: list[int] = []
    lasts: list[float] = []
    for start, end in sorted(ranges):
        if lasts and start <= lasts[-1]:
            lasts[-1] = max(lasts[-1], end)
        else:
            firsts.append(start)
            lasts.append(end)
    return firsts, lasts


def _known(kind: str, name: str, known: dict[str, Any]) -> str:
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {kind} {shown(name)}; {hint}")


def _sentence(error: ValidationError, content: dict[str, Any]) -> str:
    """The first fault of a recipe as one sentence that names its rule."""
    faults = error.errors(include_url=False, include_input=False)
    # A misspelt key explains why another one is missing.
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path = list(fault["loc"])
    where = ""
    known: list[str] = list(Recipe.model_fields)
    if path[:1] == ["rules"] and len(path) > 1:
        index = int(path[1])
        rule = content["rules"][index]
        match = f" ({shown(rule['match'])})" if isinstance(rule, dict) and rule.get("match") else ""
        where, path, known = f"rule {index + 1}{match}: ", path[2:], list(Rule.model_fields)
    elif path[:1] == ["default"] and len(path) > 1:
        where, path, known = "default: ", path[1:], list(Choice.model_fields)
    elif path[:2] == ["output", "options"] and len(path) > 2:
        where, path, known = "output.options: ", path[2:], list(GgufOptions.model_fields)
    key = ".".join(str(part) for part in path)
    if where == "output.options: " and path[:1] == ["metadata"] and len(path) > 2:
        return f"{where}{named(path[1])} must be text, a number, true, false or a list of texts"
    match fault["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(str(path[-1]), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            return f"{where}unknown key {shown(key)}; {hint}"
        case "missing":
            return f"{where}{key!r} is missing"
        case "value_error":
            return f"{where}{fault['ctx']['error']}"
        case "model_type" | "model_attributes_type":
            return f"{where}{key or 'it'} must be an object in braces"
        case _:
            said = demand(fault["msg"]) or fault["msg"][0].lower() + fault["msg"][1:]
            return f"{where}{key or 'recipe'} {said}"
