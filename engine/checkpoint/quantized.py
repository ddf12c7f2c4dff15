"""Recognises sources that another tool has quantized already, from their config, names and shapes.

FP8 sources can be read: their weights are plain 8-bit floats times scales. Packed ones (GPTQ, AWQ,
compressed-tensors, bitsandbytes, HQQ, MXFP4, …) are named, and reading their packed tensors is refused.
The layouts were decoded from files that the tools themselves wrote.
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import prod

from engine.api.wording import word
from engine.checkpoint.stored import Stored

FP8_TYPES = ("F8_E4M3", "F8_E5M2")
PACKED_TYPES = ("I32", "U8", "I8", "F4")

# Companions of a quantized weight: whatever follows the module's name. `input_scale` belongs to activations.
_SCALE_SUFFIX = re.compile(
    r"(?:\.|_)(?:weight_scale(?:_inv|_2)?|weight_zero_point|weight_shape|weight_g_idx|weight_global_scale|"
    r"scale_inv|(?:input|output|activation|k|v|q)_(?:scale|zero_point|global_scale)|scale_weight|scale_input)$"
    r"|_(?:blocks_)?scales$|\.(?:qzeros|scales|g_idx|SCB|weight_format|W_q_meta)$"
    r"|\.weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)$"
    r"|(?:gate_up_proj|down_proj)_scale$"
)
_HQQ_SUFFIX = re.compile(
    r"\.(?:scale|zero|nbits|group_size|axis|packing|shape|unpack_view_dtype|view_as_float|channel_wise|"
    r"optimize|round_zero|encoded_state_dict|stores_quant_config|offload_meta|compute_dtype|quant_scale|quant_zero)$"
)
_PACKED_SUFFIX = re.compile(r"\.(?:qweight|weight_packed|W_q)$|(?<=_proj)_blocks$")


@dataclass(frozen=True)
class Quantization:
    """`label` is for the reader; `bits` the size of a packed weight, None where nothing is packed (FP8)."""

    label: str
    bits: float | None = None
    hqq: bool = False

    def is_scale(self, name: str) -> bool:
        """Whether a tensor only says how to decode another."""
        return bool(_SCALE_SUFFIX.search(name)) or (self.hqq and bool(_HQQ_SUFFIX.search(name)))

    def is_packed(self, name: str, dtype: str) -> bool:
        """Whether a tensor holds weights that cannot be read as numbers."""
        return self.bits is not None and dtype in PACKED_TYPES and not self.is_scale(name)


def plain_name(name: str) -> str:
    """The name that a packed weight had before it was quantized."""
    return _PACKED_SUFFIX.sub(lambda found: "" if found.group() == "_blocks" else ".weight", name)


def recognise(config: Mapping | None, tensors: list[Stored]) -> Quantization | None:
    """Says how the tensors of a Hugging Face source are quantized; None if they are not."""
    settings = (config or {}).get("quantization_config") or (config or {}).get("compression_config")
    settings = _dict(settings)
    by_name = {tensor.name: tensor for tensor in tensors}
    for recogniser in (_gptq_or_awq, _compressed, _bitsandbytes, _hqq, _mxfp4, _fp8):
        found = recogniser(settings, by_name)
        if found:
            return found
    method = settings.get("quant_method")
    # A config may only ask for quantization on loading; then the weights are plain.
    packed = any(tensor.dtype in PACKED_TYPES for tensor in tensors)
    return Quantization(f"{_method(method)} (not supported)", 8.0) if method and packed else None


def _dict(value: object) -> dict:
    """A config may hold anything anywhere."""
    return value if isinstance(value, dict) else {}


def _bits(value: object) -> int | None:
    """A number of bits, if it is one."""
    return value if type(value) is int and 1 <= value <= 64 else None


def _size(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _method(value: object) -> str:
    return word(value) or "an unknown method"


def _grouped(what: str, bits: float | None, group: object) -> str:
    label = what if bits is None else f"{what}, {bits:g} bits"
    if type(group) is int and abs(group) < 1 << 31:
        label += f", groups of {group}" if group > 0 else ", one group a row"
    return label


def _gptq_or_awq(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    """GPTQ: qweight int32 [in·b/32, out], g_idx [in]. AWQ: qweight [in, out·b/32]. Scales: [in/g, out]."""
    for name, tensor in tensors.items():
        scales = tensors.get(name.removesuffix("qweight") + "scales")
        if (
            not name.endswith(".qweight")
            or scales is None
            or len(tensor.shape) != 2
            or len(scales.shape) != 2
        ):
            continue
        groups, outputs = scales.shape
        rows, columns = tensor.shape
        index = tensors.get(name.removesuffix("qweight") + "g_idx")
        method = settings.get("quant_method") or ("gptq" if columns == outputs else "awq")
        stated = _bits(settings.get("bits")) or _bits(settings.get("w_bit"))
        if method == "awq":
            inputs, bits = rows, 32 * columns / max(outputs, 1)
        else:
            inputs = index.shape[0] if index and index.shape else rows * 32 // (stated or 4)
            bits = stated or 32 * rows / max(inputs, 1)
        group = settings.get("group_size", settings.get("q_group_size", inputs // max(groups, 1)))
        label = {"gptq": "GPTQ", "awq": "AWQ"}.get(_method(method), _method(method))
        return Quantization(_grouped(label, bits, group), bits or 8.0)
    return None


def _compressed(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    packed = next((tensor for name, tensor in tensors.items() if name.endswith(".weight_packed")), None)
    if settings.get("quant_method") != "compressed-tensors" and packed is None:
        return None
    group = next(iter(_dict(settings.get("config_groups")).values()), None)
    weights = _dict(_dict(group).get("weights"))
    layout = word(_dict(group).get("format")) or word(settings.get("format")) or "packed"
    bits = _bits(weights.get("num_bits"))
    if weights.get("type") == "float" and bits == 8 and packed is None:
        return _fp8(settings, tensors)
    if packed is not None and packed.dtype == "U8":
        bits = bits or 4
    label = _grouped(f"compressed-tensors {layout}", bits, weights.get("group_size"))
    return Quantization(label, float(bits or 8))


def _bitsandbytes(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    for name in tensors:
        if ".quant_state.bitsandbytes__" in name:
            return Quantization(f"bitsandbytes {_method(name.rsplit('__', 1)[1].upper())}", 4.0)
        if name.endswith(".SCB"):
            return Quantization("bitsandbytes INT8", 8.0)
    return None


def _hqq(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    if settings.get("quant_method") != "hqq" and not any(name.endswith(".W_q") for name in tensors):
        return None
    weights = _dict(_dict(settings.get("quant_config")).get("weight_quant_params"))
    bits = _bits(weights.get("nbits"))
    return Quantization(_grouped("HQQ", bits, weights.get("group_size")), float(bits or 8), hqq=True)


def _mxfp4(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    blocks = any(name.endswith("_blocks") and tensor.dtype == "U8" for name, tensor in tensors.items())
    return Quantization("MXFP4", 4.0) if blocks else None


def _fp8(settings: Mapping, tensors: Mapping[str, Stored]) -> Quantization | None:
    floats = (tensor for tensor in tensors.values() if tensor.dtype in FP8_TYPES)
    weight = next((tensor for tensor in floats if not _SCALE_SUFFIX.search(tensor.name)), None)
    if weight is None:
        return None
    label = f"FP8 {weight.dtype.removeprefix('F8_')}"
    block = settings.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2 and all(_size(size) for size in block):
        label += f", blocks of {block[0]} × {block[1]}"
    elif (scale := scale_name(weight.name, tensors)) is not None:
        shape = tensors[scale].shape
        per = "tensor" if prod(shape) == 1 else "row" if shape[-1] == 1 or len(shape) == 1 else "block"
        label += f", one scale a {per}"
    return Quantization(label)


def scale_name(name: str, names: Container[str]) -> str | None:
    """The name of the scales of an FP8 weight, or None if it is stored without."""
    candidates = (f"{name}_scale_inv", f"{name}_scale", name.removesuffix("weight") + "scale_weight")
    return next((candidate for candidate in candidates if candidate in names), None)
