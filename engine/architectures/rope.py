"""Rotary positions: their row order, base and scaling, between transformers and llama.cpp.

transformers rotates dimension i of a head with dimension i + half ("halves"); llama.cpp's graph for Llama
rotates neighbours 2i and 2i + 1 ("pairs"). The rows of q and k are stored in the order of the rotation.

Frequencies: llama.cpp divides all by `rope.scaling.factor` (linear), ramps between divided and not (yarn;
its `yarn_beta_*` keys are not read), or, in some graphs, divides each by an element of
`rope_freqs.weight`, or of one of two tensors chosen by the size of the context (longrope). Divisors can
express all that does not depend on the length of the text.
"""

from collections.abc import Callable
from math import log, nextafter
from typing import Any

import numpy as np

from engine.api.errors import EvaluationError, ExportError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.architectures.description import Config, Metadata, Rope, head_size

FREQUENCIES = "rope_freqs.weight"
LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"
ROPE_TENSORS = (FREQUENCIES, LONG_FACTORS, SHORT_FACTORS)
NUMBERS = (
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
)
"""Rope parameters that must be positive; transformers takes anything and may divide by it."""
NEEDED = {
    "linear": {"rope_theta", "factor"},
    "llama3": {
        "rope_theta",
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    },
    "yarn": {"rope_theta", "factor", "original_max_position_embeddings"},
    "longrope": {"rope_theta", "original_max_position_embeddings"},
}
"""Which of them may not be null, by kind."""


class RopeScalingError(ExportError):
    """A scaling of rotary positions that llama.cpp cannot compute."""


class UnreadableRopeError(EvaluationError):
    """A scaling of rotary positions in a GGUF file that transformers cannot compute."""


def rope_order(config: Config, rows: int) -> np.ndarray:
    """int64 [rows]: pairs from halves. Row 2i + j of a head in GGUF is row j * half + i in transformers."""
    half = head_size(config) // 2
    return np.arange(rows).reshape(-1, 2, half).swapaxes(1, 2).ravel()


def rope_metadata(
    config: Config, rope: Rope, prefix: str
) -> tuple[Metadata, dict[str, np.ndarray], list[str]]:
    """The `rope.*` keys behind `prefix` (GGUF's architecture), tensors of the file, and notes.

    The tensors, float32 [rotated dimensions of a head / 2], divide the frequencies; there are none where the
    keys say all. Raises RopeScalingError.
    """
    parameters = config.rope_parameters["full_attention"] if rope.local else config.rope_parameters
    kind = parameters.get("rope_type", "default")
    _check_numbers(parameters, NEEDED.get(kind, {"rope_theta"}))
    keys = {
        "rope.dimension_count": _whole(_rotated(config, rope, parameters, prefix)),
        "rope.freq_base": _float(parameters["rope_theta"]),
    }
    if rope.local:
        keys["rope.freq_base_swa"] = _float(_local_base(config, kind, prefix))
    tensors: dict[str, np.ndarray] = {}
    notes = []
    if kind == "linear":
        keys |= {"rope.scaling.type": _string("linear"), "rope.scaling.factor": _float(parameters["factor"])}
    elif kind == "yarn" and _has_usual_ramp(parameters):
        keys |= _yarn_keys(config)
    elif kind in ("llama3", "yarn") and rope.divisors:
        tensors[FREQUENCIES], attention = _divisors(config)
        if attention != 1.0:
            keys["rope.scaling.attn_factor"] = _float(attention)
    elif kind == "longrope" and rope.factors:
        tensors, attention = _factors(config)
        original = int(parameters["original_max_position_embeddings"])
        keys |= {
            "rope.scaling.type": _string("longrope"),
            "rope.scaling.attn_factor": _float(attention),
            "rope.scaling.original_context_length": _whole(original),
        }
        notes.append(
            f"The model has other rotary frequencies for texts beyond {original} tokens; llama.cpp takes "
            f"those for every text once its context (-c) is set beyond {original} tokens."
        )
    elif kind == "dynamic":
        notes.append(
            f"The model's dynamic rope scaling acts beyond {config.max_position_embeddings} tokens only; "
            "llama.cpp does not have it, so keep to that context."
        )
    elif kind != "default":
        own = " with a ramp of its own" if kind == "yarn" else ""
        possible = ["linear", "dynamic", "yarn"]
        possible += ["llama3"] * rope.divisors + ["longrope"] * rope.factors
        raise RopeScalingError(
            f'config.json: rope scaling "{kind}"{own} cannot be written for llama.cpp\'s "{prefix}"; '
            f"{', '.join(possible[:-1])} and {possible[-1]} can."
        )
    return {f"{prefix}.{key}": value for key, value in keys.items()}, tensors, notes


def _rotated(config: Config, rope: Rope, parameters: dict[str, Any], prefix: str) -> int:
    """How many of a head's dimensions are rotated."""
    part = parameters.get("partial_rotary_factor", 1.0)
    if type(part) not in (int, float) or not 0 < part <= 1:
        raise RopeScalingError(
            f"config.json: partial_rotary_factor is {part!r}, where a number above 0 and up to 1 is needed."
        )
    size = int(head_size(config) * part)
    if part != 1.0 and not rope.partial:
        raise RopeScalingError(
            f"config.json: partial_rotary_factor is {part}, and llama.cpp rotates "
            f"whole heads for this architecture ({prefix})."
        )
    if size == 0 or size % 2:
        raise RopeScalingError(
            f"config.json: partial_rotary_factor is {part}, which rotates {size} of the {head_size(config)} "
            "dimensions of a head; an even number of them is needed."
        )
    return size


def _local_base(config: Config, kind: str, prefix: str) -> float:
    """The base of the layers with a sliding window."""
    local = config.rope_parameters["sliding_attention"]
    _check_numbers(local, {"rope_theta"})
    if local.get("rope_type", "default") != "default" or kind not in ("default", "linear"):
        raise RopeScalingError(
            f'config.json: llama.cpp\'s "{prefix}" scales the rotary positions of the layers without a '
            "sliding window alone, and linearly; this config.json scales others, or in another way."
        )
    return float(local["rope_theta"])


def _check_numbers(rope: dict[str, Any], needed: set[str]) -> None:
    for name in NUMBERS:
        value = rope.get(name)
        if value is None and name not in needed:
            continue
        if not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise RopeScalingError(f"config.json: {name} is {value!r}, where a positive number is needed.")
    for name in ("mscale", "mscale_all_dim"):
        if not isinstance(rope.get(name) or 0, int | float):
            raise RopeScalingError(f"config.json: {name} is {rope[name]!r}, where a number is needed.")


def rope_parameters(
    metadata: Metadata, rope: Rope, prefix: str, tensors: dict[str, np.ndarray], head: int, context: int
) -> dict[str, Any]:
    """transformers' `rope_parameters` with the frequencies that llama.cpp computes from a file.

    `tensors` are those of the file that divide frequencies, `head` the size of a head. Divisors have no name
    of their own in transformers; "longrope" with one list for short and long texts divides in the same way.
    Raises UnreadableRopeError.
    """

    def value(key: str, default: Any) -> Any:
        found = metadata.get(f"{prefix}.rope.{key}")
        return default if found is None else found.value

    rotated = value("dimension_count", head)
    parameters = {"rope_theta": value("freq_base", 10000.0)} | _part(rotated, head, rope, prefix)
    for name, divisors in tensors.items():
        if divisors.shape != (rotated // 2,):
            raise UnreadableRopeError(
                f"The file's {name} has the shape {list(divisors.shape)}, where [{rotated // 2}] is needed: "
                "one number for two rotated dimensions of a head."
            )
    scaling = _scaling(value, tensors, rotated // 2, context)
    if not rope.local:
        return parameters | scaling
    local = {"rope_type": "default", "rope_theta": value("freq_base_swa", 10000.0)}
    return {"full_attention": parameters | scaling, "sliding_attention": local}


def _part(rotated: Any, head: int, rope: Rope, prefix: str) -> dict[str, float]:
    """transformers' share of a head that is rotated, where it is not the whole."""
    if rotated == head:
        return {"partial_rotary_factor": 1.0} if rope.partial else {}
    if not (rope.partial and isinstance(rotated, int) and 0 < rotated < head and rotated % 2 == 0):
        raise UnreadableRopeError(
            f"The file rotates {rotated} of the {head} dimensions of a head ({prefix}.rope.dimension_count), "
            "which transformers cannot express for this architecture."
        )
    part = rotated / head
    # transformers rounds the product down.
    return {"partial_rotary_factor": part if int(head * part) == rotated else nextafter(part, 1.0)}


def _scaling(
    value: Callable[[str, Any], Any], tensors: dict[str, np.ndarray], half: int, context: int
) -> dict[str, Any]:
    """transformers' parameters of the scaling that a file states by `value(key, default)` and `tensors`."""
    kind = value("scaling.type", "linear")
    factor = value("scaling.factor", value("scale_linear", 0.0)) or 1.0
    attention = value("scaling.attn_factor", 1.0)
    original = value("scaling.original_context_length", context)
    if kind not in ("none", "linear", "yarn", "longrope") or (kind == "yarn" and tensors):
        raise UnreadableRopeError(
            f'The file has rope scaling "{kind}"'
            + (f" together with {next(iter(tensors))}" if tensors else "")
            + ", which cannot be evaluated here; none, linear, yarn, longrope and divisors alone can."
        )
    if kind == "yarn":
        yarn = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        return yarn | ({"attention_factor": attention * _yarn_attention(factor)} if attention != 1.0 else {})
    if kind == "none":
        factor = 1.0
    if not tensors and attention == 1.0:
        return {"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor}
    short = tensors.get(SHORT_FACTORS, tensors.get(FREQUENCIES, np.ones(half, np.float32)))
    long = tensors.get(LONG_FACTORS, short)
    return {
        "rope_type": "longrope",
        "short_factor": [float(divisor) * factor for divisor in short],
        "long_factor": [float(divisor) * factor for divisor in long],
        "factor": 1.0,
        "attention_factor": attention,
        "original_max_position_embeddings": original,
    }


def _has_usual_ramp(rope: dict[str, Any]) -> bool:
    """Whether yarn ramps as llama.cpp does when no parameter says otherwise."""
    betas = (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
    return betas == (32, 1) and rope.get("truncate", True)


def _yarn_keys(config: Config) -> Metadata:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    original = rope["original_max_position_embeddings"]
    factor = rope["factor"] or config.max_position_embeddings / original
    keys = {
        "rope.scaling.type": _string("yarn"),
        "rope.scaling.factor": _float(factor),
        "rope.scaling.original_context_length": _whole(int(original)),
    }
    _, attention = ROPE_INIT_FUNCTIONS["yarn"](config)
    if abs(attention / _yarn_attention(factor) - 1) > 1e-7:
        keys["rope.scaling.attn_factor"] = _float(attention / _yarn_attention(factor))
    return keys


def _yarn_attention(factor: float) -> float:
    """What llama.cpp multiplies queries and keys by on its own when yarn stretches by `factor`."""
    return 1.0 + 0.1 * log(factor) if factor > 1 else 1.0


def _divisors(config: Config) -> tuple[np.ndarray, float]:
    """Unscaled frequencies over scaled ones, float32 [rotated / 2], and the factor on queries and keys.

    By transformers' own functions.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    rotated = int(head_size(config) * rope.get("partial_rotary_factor", 1.0))
    exponents = torch.arange(0, rotated, 2, dtype=torch.float) / rotated
    try:
        scaled, attention = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
        divisors = (1.0 / (rope["rope_theta"] ** exponents) / scaled).numpy()
    except OverflowError:  # whole numbers of any length
        divisors, attention = np.zeros(1), 1.0
    if not (np.isfinite(divisors).all() and (divisors > 0).all()):
        raise RopeScalingError(
            f'config.json: rope_theta and the numbers of the rope scaling "{rope["rope_type"]}" give '
            "frequencies that are zero, infinite or negative."
        )
    return divisors, attention


def _factors(config: Config) -> tuple[dict[str, np.ndarray], float]:
    """longrope's two lists, float32 [rotated / 2] each, and transformers' factor on queries and keys."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    rotated = int(head_size(config) * rope.get("partial_rotary_factor", 1.0))
    tensors = {}
    for name, tensor in (("long_factor", LONG_FACTORS), ("short_factor", SHORT_FACTORS)):
        given = rope.get(name)
        numbers = isinstance(given, list) and all(type(factor) in (int, float) for factor in given)
        factors = np.array(given if numbers else [], np.float32)
        if len(factors) != rotated // 2 or not (np.isfinite(factors) & (factors > 0)).all():
            raise RopeScalingError(
                f"config.json: {name} of the rope scaling is not a list of {rotated // 2} positive numbers, "
                "one for each rotary frequency."
            )
        tensors[tensor] = factors
    try:
        _, attention = ROPE_INIT_FUNCTIONS["longrope"](config)
    except ArithmeticError as error:
        raise RopeScalingError(
            'config.json: rope_theta and the numbers of the rope scaling "longrope" give no frequencies.'
        ) from error
    return tensors, attention


def _float(value: float) -> GgufValue:
    return GgufValue(GGUFValueType.FLOAT32, float(value))


def _whole(value: int) -> GgufValue:
    return GgufValue(GGUFValueType.UINT32, value)


def _string(value: str) -> GgufValue:
    return GgufValue(GGUFValueType.STRING, value)
