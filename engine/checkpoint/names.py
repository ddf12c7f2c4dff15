"""What a tensor's name says: its canonical (GGUF) name, its role, its transformer block, its expert.

Known architectures get the canonical name from `gguf`'s tensor-name map and the role from that; for all
others the role comes from patterns of the names that models commonly use.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map

from engine.api.model import Role

# transformers' model types whose GGUF name differs by more than punctuation and "_text".
_ALIASES = {
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "ministral": "LLAMA",
    "phi": "PHI2",
    "cohere": "COMMAND_R",
    "olmo3": "OLMO2",
    "gpt_bigcode": "STARCODER",
    "deepseek_v2": "DEEPSEEK2",
    "deepseek_v3": "DEEPSEEK2",
    "qwen2_5_vl": "QWEN2VL",
    "glm": "CHATGLM",
    "glm4_moe": "GLM4_MOE",
    "modernbert": "MODERN_BERT",
    "hunyuan_v1_dense": "HUNYUAN_DENSE",
    "hunyuan_v1_moe": "HUNYUAN_MOE",
    "granitemoeshared": "GRANITE_MOE",
    "granitemoehybrid": "GRANITE_HYBRID",
}

_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk|decoder_layer)\.(\d{1,6})\.")
# One expert of many; in GGUF only the files of Mixtral's first weeks have them apart.
_EXPERT = re.compile(r"(\.experts|\.ffn_(?:gate|up|down)(?=\.\d+\.weight$))\.(\d{1,6})(?=\.)")
# The norm of one head of many, which GGUF stacks.
_HEAD = re.compile(r"(?<=_layernorm)\.norms\.(\d{1,6})(?=\.)")
_GGUF_BLOCK = re.compile(r"^(?:enc\.|dec\.)?blk\.\d+\.")

# Parts of a checkpoint outside of its text model: any of these among the first three components of a name.
# `mtp` is the head that predicts further tokens, with blocks of its own count.
_OTHER_PARTS = re.compile(
    r"^(?:[a-z_]+\.){0,2}?(vision_tower|vision_model|vision_encoder|vision_embed_tokens|vision|visual|img_processor|"
    r"image_newline|multi_modal_projector|mm_projector|mlp1|connector|aligner|embed_vision|embed_audio|"
    r"audio_tower|audio_model|audio_encoder|audio|talker|token2wav|projector|patch_merger|mtp)(?:\.|$)"
)
_OTHER_GGUF_PARTS = re.compile(r"^(v|mm|a)\.")
_TEXT_PREFIX = re.compile(
    r"^(?:thinker\.)?(?:model\.)?(?:language_model|text_model|llm)\.(?:model\.)?|^thinker\."
)

# Tables that old checkpoints store though they follow from the config: causal masks, positions, frequencies.
_BUFFER = re.compile(r"(?:^|\.)(?:attn|attention)\.(?:masked_)?bias$|rotary_emb\.inv_freq$|position_ids$")

_CANONICAL_ROLES = {
    "token_embd": Role.EMBEDDING,
    "per_layer_token_embd": Role.EMBEDDING,
    "position_embd": Role.POSITION,
    "output": Role.OUTPUT,
    "attn_q": Role.Q,
    "attn_q_a": Role.Q,
    "attn_q_b": Role.Q,
    "attn_k": Role.K,
    "attn_k_b": Role.K,
    "attn_v": Role.V,
    "attn_v_b": Role.V,
    "attn_qkv": Role.QKV,
    "attn_output": Role.O,
    "attn_o": Role.O,
    "attn_rot_embd": Role.ROPE,
    "rope_freqs": Role.ROPE,
    "rope_factors_long": Role.ROPE,
    "rope_factors_short": Role.ROPE,
    "ffn_gate": Role.GATE,
    "ffn_gate_shexp": Role.GATE,
    "ffn_gate_chexp": Role.GATE,
    "ffn_up": Role.UP,
    "ffn_up_shexp": Role.UP,
    "ffn_up_chexp": Role.UP,
    "ffn_down": Role.DOWN,
    "ffn_down_shexp": Role.DOWN,
    "ffn_down_chexp": Role.DOWN,
    "ffn_gate_inp": Role.ROUTER,
    "ffn_gate_inp_shexp": Role.ROUTER,
    "ffn_gate_exps": Role.EXPERT,
    "ffn_up_exps": Role.EXPERT,
    "ffn_down_exps": Role.EXPERT,
    "ffn_gate_up_exps": Role.EXPERT,
}

# For names without a canonical one; the first that is found wins.
_ROLE_PATTERNS = [
    (re.compile(pattern), role)
    for pattern, role in (
        (r"[._]bias$|\.beta$", Role.BIAS),
        (r"inv_freq|rotary|rope", Role.ROPE),
        (r"norm|(?:^|\.)(?:ln|ln_[a-z0-9]+|ln\d)(?:\.|$)", Role.NORM),
        (r"router|shared_expert_gate|(?:mlp|moe|ffn|feed_forward|mixer)\.gate(?:\.wg)?\.weight$",
         Role.ROUTER),
        (r"(?<!shared_)(?<!share_)experts?\.", Role.EXPERT),
        (r"(?:^|\.)(?:wpe|position_embeddings?|embed_positions|pos_embed\w*)(?:\.|$)", Role.POSITION),
        (r"(?:^|\.)(?:lm_head|embed_out|output_layer|(?<!attention\.)output|head)\.weight$", Role.OUTPUT),
        (r"embed_tokens|wte|(?:word|tok|token)_embeddings?|embed_in|(?:^|\.)(?:shared|embeddings?)\.weight$",
         Role.EMBEDDING),
        (r"qkv|query_key_value|attn\.c_attn|in_proj_weight$", Role.QKV),
        (r"(?:^|[._])(?:q_proj|wq|query|q_lin|SelfAttention\.q|EncDecAttention\.q|q)\.weight$", Role.Q),
        (r"(?:^|[._])(?:k_proj|wk|key|k_lin|SelfAttention\.k|EncDecAttention\.k|k)\.weight$", Role.K),
        (r"(?:^|[._])(?:v_proj|wv|value|v_lin|SelfAttention\.v|EncDecAttention\.v|v)\.weight$", Role.V),
        (r"(?:o_proj|out_proj|out_lin|attention\.wo|attn\.wo|Attention\.o|attn\.c_proj|attn\.dense|"
         r"attention\.dense|attention\.output\.dense)\.weight$", Role.O),
        (r"gate_up_proj", Role.GATE_UP),
        (r"(?:gate_proj|\.w1|wi_0|c_fc_0|ffn_gate)\.weight$", Role.GATE),
        (r"(?:down_proj|\.w2|dense_4h_to_h|mlp\.c_proj|fc2|fc_out|lin2|output\.dense|\.wo|ffn_down)\.weight$",
         Role.DOWN),
        (r"(?:up_proj|\.w3|dense_h_to_4h|c_fc|c_fc_1|fc1|fc_in|lin1|intermediate\.dense|wi|wi_1|ffn_up)\.weight$",
         Role.UP),
    )
]  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """`canonical` is None where `gguf` has no name; `expert` counts the routed experts of a block from 0,
    `head` the heads with a norm of their own."""

    canonical: str | None
    role: Role
    block: int | None
    expert: int | None
    head: int | None = None


def gguf_architecture(model_type: str) -> MODEL_ARCH | None:
    """The GGUF architecture of a transformers `model_type` or of a GGUF's `general.architecture`."""
    model_type = model_type.removesuffix("_text")
    if model_type in _ALIASES:
        return MODEL_ARCH[_ALIASES[model_type]]
    return _by_plain_name().get(_plain(model_type))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())


@cache
def _by_plain_name() -> dict[str, MODEL_ARCH]:
    return {_plain(name): arch for arch, name in MODEL_ARCH_NAMES.items() if arch != MODEL_ARCH.MMPROJ}


def other_part(name: str, *, gguf: bool = False) -> str | None:
    """The part of a multimodal checkpoint that a tensor belongs to, or None for its text model."""
    found = (_OTHER_GGUF_PARTS if gguf else _OTHER_PARTS).match(name)
    return found.group(1) if found else None


def is_buffer(name: str) -> bool:
    """Whether the tensor is a table that follows from the config, no weight."""
    return _BUFFER.search(name) is not None


def text_name(name: str) -> str:
    """The name as the text model alone would have it: "language_model.model.layers…" is "model.layers…"."""
    found = _TEXT_PREFIX.match(name)
    if not found:
        return name
    rest = name[found.end() :]
    return rest if rest.startswith(("lm_head", "model.")) else f"model.{rest}"


def identify(name: str, architecture: MODEL_ARCH | None, *, gguf: bool = False) -> Identity:
    """What the name of a weight (or bias) of the text part says.

    `architecture` tells how to read the names of a transformers model; `gguf`: they are canonical already.
    """
    text = name if gguf else text_name(name)
    block = expert = head = None
    if found := _EXPERT.search(text):
        expert = int(found.group(2))
        text = text[: found.end(1)] + ("_exps" if gguf else "") + text[found.end(2) :]
    if found := _HEAD.search(text):
        head = int(found.group(1))
        text = text[: found.start()] + text[found.end() :]
    if found := _BLOCK.search(text):
        block = int(found.group(1))
        text = text[: found.start(1)] + "0" + text[found.end(1) :]
    if is_buffer(text):
        return Identity(None, Role.ROPE if text.endswith("inv_freq") else Role.OTHER, block, None)
    canonical, role = _meaning(text, architecture, gguf)
    if canonical is not None and block is not None:
        canonical = canonical.replace("blk.0.", f"blk.{block}.", 1)
    return Identity(canonical, role, block, expert, head)


@lru_cache(maxsize=10_000)  # a model has tens of thousands of experts under a few dozen names
def _meaning(text: str, architecture: MODEL_ARCH | None, gguf: bool) -> tuple[str | None, Role]:
    """Canonical name and role of a name whose block, if any, is 0 and whose expert has no number."""
    canonical = text if gguf else _canonical(text, architecture)
    return canonical, _role(text, canonical)


@cache
def _name_map(architecture: MODEL_ARCH) -> TensorNameMap:
    # One block only: the map is asked with block 0, so a config that claims a billion blocks costs nothing.
    return get_tensor_name_map(architecture, 1)


def _canonical(text: str, architecture: MODEL_ARCH | None) -> str | None:
    if architecture is None:
        return None
    if text == "lm_head.weight":  # some architectures have no output of their own; their checkpoints may
        return "output.weight"
    canonical = _name_map(architecture).get_name(text, (".weight", ".bias"))
    if canonical and canonical.endswith(("_exps", "attn_sinks")):  # without ".weight" in transformers
        canonical += ".weight"
    return canonical


def _role(text: str, canonical: str | None) -> Role:
    if canonical is not None:
        if canonical.endswith(".bias"):
            return Role.BIAS
        if canonical.endswith((".scale", ".input_scale")):
            return Role.SCALE
        leaf = _GGUF_BLOCK.sub("", canonical).removesuffix(".weight")
        if "norm" in leaf:
            return Role.NORM
        if leaf == "ffn_up" and "gate_up" in text:
            return Role.GATE_UP
        if leaf in _CANONICAL_ROLES:
            return _CANONICAL_ROLES[leaf]
    return next((role for pattern, role in _ROLE_PATTERNS if pattern.search(text)), Role.OTHER)
