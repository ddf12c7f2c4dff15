"""Rotary positions: their row order, base and scaling, between transformers and llama.cpp.

transformers rotates dimension i of a head with dimension i + half ("halves"); llama.cpp's graph for Llama
rotates neighbours 2i and 2i + 1 ("pairs"). The rows of q and k are stored in the order of the rotation.

Frequencies: llama.cpp divides all by `rope.scaling.factor` (linear), ramps between divided and not (yarn;
its `yarn_beta_*` keys are not read for this architecture), or divides each by an element of
`rope_freqs.weight`. The last can express all that does not depend on the length of the text.
"""

from math import log
from typing import Any

import numpy as np
from gguf import GGUFValueType

from engine.api.errors import EvaluationError, ExportError
from engine.api.gguf import GgufValue
from engine.architectures.description import Config, Metadata

FREQUENCIES = "rope_freqs.weight"
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
}
"""Which of them may not be null, by kind."""


class RopeScalingError(ExportError):
    """A scaling of rotary positions that llama.cpp cannot compute."""


class UnreadableRopeError(EvaluationError):
    """A scaling of rotary positions in a GGUF file that transformers cannot compute."""


def rope_order(config: Config, rows: int) -> np.ndarray:
    """int64 [rows]: pairs from halves. Row 2i + j of a head in GGUF is row j * half + i in transformers."""
    half = config.head_dim // 2
    return np.arange(rows).reshape(-1, 2, half).swapaxes(1, 2).ravel()


def rope_metadata(config: Config, prefix: str) -> tuple[Metadata, np.ndarray | None, list[str]]:
    """The `rope.*` keys behind `prefix` (GGUF's architecture), the divisors of the frequencies, and notes.

    Divisors are float32 [head_dim / 2], or None where the keys say all. Raises RopeScalingError.
    """
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    _check_numbers(rope, NEEDED.get(kind, {"rope_theta"}))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise RopeScalingError(
            f"config.json: partial_rotary_factor is {rope['partial_rotary_factor']}, and llama.cpp rotates "
            f"whole heads for this architecture ({prefix})."
        )
    keys = {"rope.freq_base": _float(rope["rope_theta"])}
    divisors, notes = None, []
    if kind == "linear":
        keys |= {"rope.scaling.type": _string("linear"), "rope.scaling.factor": _float(rope["factor"])}
    elif kind == "yarn" and _has_usual_ramp(rope):
        keys |= _yarn_keys(config)
    elif kind in ("llama3", "yarn"):
        divisors, attention = _divisors(config)
        if attention != 1.0:
            keys["rope.scaling.attn_factor"] = _float(attention)
    elif kind == "dynamic":
        notes.append(
            f"The model's dynamic rope scaling acts beyond {config.max_position_embeddings} tokens only; "
            "llama.cpp does not have it, so keep to that context."
        )
    elif kind != "default":
        raise RopeScalingError(
            f'config.json: rope scaling "{kind}" cannot be written for llama.cpp\'s "{prefix}"; '
            "linear, dynamic, yarn and llama3 can."
        )
    return {f"{prefix}.{key}": value for key, value in keys.items()}, divisors, notes


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
    metadata: Metadata, prefix: str, divisors: np.ndarray | None, half: int, context: int
) -> dict[str, Any]:
    """transformers' `rope_parameters` with the frequencies that llama.cpp computes from a file.

    `half` of a head's dimensions is the number of frequencies. Divisors have no name of their own in
    transformers; "longrope" with one list for short and long texts divides in the same way.
    Raises UnreadableRopeError.
    """

    def value(key: str, default: Any) -> Any:
        found = metadata.get(f"{prefix}.rope.{key}")
        return default if found is None else found.value

    kind = value("scaling.type", "linear")
    factor = value("scaling.factor", value("scale_linear", 0.0)) or 1.0
    attention = value("scaling.attn_factor", 1.0)
    rope = {"rope_theta": value("freq_base", 10000.0)}
    if kind not in ("none", "linear", "yarn") or (kind == "yarn" and divisors is not None):
        raise UnreadableRopeError(
            f'The file has rope scaling "{kind}"'
            + (f" together with {FREQUENCIES}" if divisors is not None else "")
            + ", which cannot be evaluated here; none, linear, yarn and divisors alone can."
        )
    if kind == "none":
        factor = 1.0
    if kind == "yarn":
        original = value("scaling.original_context_length", context)
        rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        return rope | ({"attention_factor": attention * _yarn_attention(factor)} if attention != 1.0 else {})
    if divisors is None and attention == 1.0:
        return rope | (
            {"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor}
        )
    each = [float(divisor) * factor for divisor in (np.ones(half) if divisors is None else divisors)]
    return rope | {
        "rope_type": "longrope",
        "short_factor": each,
        "long_factor": each,
        "factor": 1.0,
        "attention_factor": attention,
        "original_max_position_embeddings": context,
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
        "rope.scaling.original_context_length": GgufValue(GGUFValueType.UINT32, int(original)),
    }
    _, attention = ROPE_INIT_FUNCTIONS["yarn"](config)
    if abs(attention / _yarn_attention(factor) - 1) > 1e-7:
        keys["rope.scaling.attn_factor"] = _float(attention / _yarn_attention(factor))
    return keys


def _yarn_attention(factor: float) -> float:
    """What llama.cpp multiplies queries and keys by on its own when yarn stretches by `factor`."""
    return 1.0 + 0.1 * log(factor) if factor > 1 else 1.0


def _divisors(config: Config) -> tuple[np.ndarray, float]:
    """Unscaled frequencies over scaled ones, float32 [head_dim / 2], and the factor on queries and keys.

    By transformers' own functions.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
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


def _float(value: float) -> GgufValue:
    return GgufValue(GGUFValueType.FLOAT32, float(value))


def _string(value: str) -> GgufValue:
    return GgufValue(GGUFValueType.STRING, value)
