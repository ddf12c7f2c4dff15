"""Canonical names, roles, blocks and experts, against the names that real models are published under."""

import pytest
from gguf import MODEL_ARCH

from engine.api.model import Role
from engine.checkpoint.names import gguf_architecture, identify, other_part, text_name

# model type, published name, canonical name, role, block, expert
KNOWN = [
    ("llama", "model.embed_tokens.weight", "token_embd.weight", Role.EMBEDDING, None, None),
    ("llama", "lm_head.weight", "output.weight", Role.OUTPUT, None, None),
    ("llama", "model.norm.weight", "output_norm.weight", Role.NORM, None, None),
    ("llama", "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", Role.Q, 0, None),
    ("llama", "model.layers.79.self_attn.k_proj.weight", "blk.79.attn_k.weight", Role.K, 79, None),
    ("llama", "model.layers.11.self_attn.v_proj.weight", "blk.11.attn_v.weight", Role.V, 11, None),
    ("llama", "model.layers.1.self_attn.o_proj.weight", "blk.1.attn_output.weight", Role.O, 1, None),
    ("llama", "model.layers.1.self_attn.o_proj.bias", "blk.1.attn_output.bias", Role.BIAS, 1, None),
    ("llama", "model.layers.1.self_attn.rotary_emb.inv_freq", None, Role.ROPE, 1, None),
    ("mistral", "model.layers.2.mlp.gate_proj.weight", "blk.2.ffn_gate.weight", Role.GATE, 2, None),
    ("mistral", "model.layers.2.mlp.up_proj.weight", "blk.2.ffn_up.weight", Role.UP, 2, None),
    ("mistral", "model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight", Role.DOWN, 2, None),
    ("llama", "model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight", Role.NORM, 3, None),
    ("gemma2", "model.layers.3.post_attention_layernorm.weight", "blk.3.post_attention_norm.weight",
     Role.NORM, 3, None),
    ("gemma3_text", "model.layers.3.self_attn.q_norm.weight", "blk.3.attn_q_norm.weight", Role.NORM, 3, None),
    ("olmo2", "model.layers.3.post_feedforward_layernorm.weight", "blk.3.post_ffw_norm.weight",
     Role.NORM, 3, None),
    ("qwen2", "model.layers.5.self_attn.q_proj.bias", "blk.5.attn_q.bias", Role.BIAS, 5, None),
    ("mixtral", "model.layers.4.block_sparse_moe.gate.weight", "blk.4.ffn_gate_inp.weight",
     Role.ROUTER, 4, None),
    ("mixtral", "model.layers.4.block_sparse_moe.experts.7.w1.weight", "blk.4.ffn_gate_exps.weight",
     Role.EXPERT, 4, 7),
    ("mixtral", "model.layers.4.block_sparse_moe.experts.0.w2.weight", "blk.4.ffn_down_exps.weight",
     Role.EXPERT, 4, 0),
    ("mixtral", "model.layers.4.block_sparse_moe.experts.11.w3.weight", "blk.4.ffn_up_exps.weight",
     Role.EXPERT, 4, 11),
    ("qwen2_moe", "model.layers.0.mlp.experts.59.gate_proj.weight", "blk.0.ffn_gate_exps.weight",
     Role.EXPERT, 0, 59),
    ("qwen2_moe", "model.layers.0.mlp.shared_expert.up_proj.weight", "blk.0.ffn_up_shexp.weight",
     Role.UP, 0, None),
    ("qwen2_moe", "model.layers.0.mlp.shared_expert_gate.weight", "blk.0.ffn_gate_inp_shexp.weight",
     Role.ROUTER, 0, None),
    ("qwen3_moe", "model.layers.0.mlp.gate.weight", "blk.0.ffn_gate_inp.weight", Role.ROUTER, 0, None),
    ("llama4_text", "model.layers.1.feed_forward.experts.down_proj", "blk.1.ffn_down_exps.weight",
     Role.EXPERT, 1, None),
    ("deepseek_v3", "model.layers.3.mlp.shared_experts.down_proj.weight", "blk.3.ffn_down_shexp.weight",
     Role.DOWN, 3, None),
    ("deepseek_v3", "model.layers.3.self_attn.q_b_proj.weight", "blk.3.attn_q_b.weight", Role.Q, 3, None),
    ("phi3", "model.layers.0.self_attn.qkv_proj.weight", "blk.0.attn_qkv.weight", Role.QKV, 0, None),
    ("phi3", "model.layers.0.mlp.gate_up_proj.weight", "blk.0.ffn_up.weight", Role.GATE_UP, 0, None),
    ("gpt2", "transformer.wpe.weight", "position_embd.weight", Role.POSITION, None, None),
    ("gpt2", "h.3.attn.c_attn.weight", "blk.3.attn_qkv.weight", Role.QKV, 3, None),
    ("gpt2", "h.3.attn.c_proj.weight", "blk.3.attn_output.weight", Role.O, 3, None),
    ("gpt2", "h.3.mlp.c_proj.weight", "blk.3.ffn_down.weight", Role.DOWN, 3, None),
    ("gpt2", "h.3.attn.bias", None, Role.OTHER, 3, None),
    ("gpt2", "h.3.ln_1.bias", "blk.3.attn_norm.bias", Role.BIAS, 3, None),
    ("gpt_neox", "gpt_neox.layers.2.mlp.dense_h_to_4h.weight", "blk.2.ffn_up.weight", Role.UP, 2, None),
    ("falcon", "transformer.h.1.self_attention.query_key_value.weight", "blk.1.attn_qkv.weight",
     Role.QKV, 1, None),
    ("starcoder2", "model.layers.0.mlp.c_fc.weight", "blk.0.ffn_up.weight", Role.UP, 0, None),
    ("cohere", "model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", Role.NORM, 0, None),
    ("gemma3_text", "language_model.model.layers.2.mlp.up_proj.weight", "blk.2.ffn_up.weight",
     Role.UP, 2, None),
    ("gemma3_text", "model.language_model.layers.2.mlp.up_proj.weight", "blk.2.ffn_up.weight",
     Role.UP, 2, None),
    ("llama", "language_model.lm_head.weight", "output.weight", Role.OUTPUT, None, None),
]  # fmt: skip

UNKNOWN = [
    ("transformer.layers.3.attention.query.weight", Role.Q, 3),
    ("decoder.blocks.3.attn.wk.weight", Role.K, 3),
    ("model.layers.3.mixer.v_proj.weight", Role.V, 3),
    ("model.layers.3.attn.out_proj.weight", Role.O, 3),
    ("model.layers.3.ffn.w1.weight", Role.GATE, 3),
    ("model.layers.3.ffn.w2.weight", Role.DOWN, 3),
    ("model.layers.3.ffn.w3.weight", Role.UP, 3),
    ("model.layers.3.mlp.gate_up_proj.weight", Role.GATE_UP, 3),
    ("model.layers.3.moe.experts.gate_up_proj", Role.EXPERT, 3),
    ("model.layers.3.moe.shared_experts.gate_up_proj.weight", Role.GATE_UP, 3),
    ("model.layers.3.moe.gate.weight", Role.ROUTER, 3),
    ("model.layers.3.ln1.weight", Role.NORM, 3),
    ("model.layers.3.ffn.w1.bias", Role.BIAS, 3),
    ("model.tok_embeddings.weight", Role.EMBEDDING, None),
    ("model.embed_positions.weight", Role.POSITION, None),
    ("output.weight", Role.OUTPUT, None),
    ("model.layers.3.mixer.A_log", Role.OTHER, 3),
]

GGUF = [
    ("token_embd.weight", Role.EMBEDDING, None),
    ("output.weight", Role.OUTPUT, None),
    ("blk.12.attn_output.weight", Role.O, 12),
    ("blk.12.ffn_gate_up_exps.weight", Role.EXPERT, 12),
    ("blk.12.ffn_gate_inp.weight", Role.ROUTER, 12),
    ("blk.12.ffn_up.scale", Role.SCALE, 12),
    ("blk.12.exp_probs_b.bias", Role.BIAS, 12),
    ("rope_freqs.weight", Role.ROPE, None),
]


@pytest.mark.parametrize(("model", "name", "canonical", "role", "block", "expert"), KNOWN)
def test_known_architectures(
    model: str, name: str, canonical: str | None, role: Role, block: int | None, expert: int | None
) -> None:
    found = identify(name, gguf_architecture(model))
    assert (found.canonical, found.role, found.block, found.expert) == (canonical, role, block, expert)


@pytest.mark.parametrize(("name", "role", "block"), UNKNOWN)
def test_unknown_architectures_get_roles_from_common_names(name: str, role: Role, block: int | None) -> None:
    found = identify(name, None)
    assert (found.canonical, found.role, found.block) == (None, role, block)


@pytest.mark.parametrize(("name", "role", "block"), GGUF)
def test_gguf_names_are_canonical(name: str, role: Role, block: int | None) -> None:
    found = identify(name, None, gguf=True)
    assert (found.canonical, found.role, found.block) == (name, role, block)


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("llama", MODEL_ARCH.LLAMA),
        ("mixtral", MODEL_ARCH.LLAMA),
        ("qwen2_moe", MODEL_ARCH.QWEN2MOE),
        ("qwen3", MODEL_ARCH.QWEN3),
        ("gemma3_text", MODEL_ARCH.GEMMA3),
        ("phi", MODEL_ARCH.PHI2),
        ("gpt_neox", MODEL_ARCH.GPTNEOX),
        ("gpt_oss", MODEL_ARCH.GPT_OSS),
        ("olmo", MODEL_ARCH.OLMO),
        ("stablelm", MODEL_ARCH.STABLELM),
        ("smollm3", MODEL_ARCH.SMOLLM3),
        ("granite", MODEL_ARCH.GRANITE),
        ("cohere2", MODEL_ARCH.COHERE2),
        ("nothing_like_it", None),
    ],
)
def test_architectures_of_model_types(model: str, architecture: MODEL_ARCH | None) -> None:
    assert gguf_architecture(model) == architecture


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", "vision_tower"),
        ("model.vision_tower.blocks.0.norm1.weight", "vision_tower"),
        ("visual.blocks.0.attn.qkv.weight", "visual"),
        ("model.visual.merger.mlp.0.weight", "visual"),
        ("multi_modal_projector.linear_1.weight", "multi_modal_projector"),
        ("model.image_newline", "image_newline"),
        ("thinker.audio_tower.layers.0.fc1.weight", "audio_tower"),
        ("mtp.layers.0.mlp.gate_proj.weight", "mtp"),
        ("model.layers.0.self_attn.v_proj.weight", None),
        ("language_model.model.layers.0.mlp.up_proj.weight", None),
        ("transformer.h.0.attn.c_attn.weight", None),
        ("decoder.block.0.layer.0.SelfAttention.v.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_parts_outside_of_the_text_model(name: str, part: str | None) -> None:
    assert other_part(name) == part


def test_parts_of_gguf_projectors() -> None:
    parts = [other_part(name, gguf=True) for name in ("v.blk.0.attn_q.weight", "mm.0.weight", "blk.0.x")]
    assert parts == ["v", "mm", None]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.text_model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("thinker.model.norm.weight", "model.norm.weight"),
        ("thinker.lm_head.weight", "lm_head.weight"),
        ("model.norm.weight", "model.norm.weight"),
    ],
)
def test_prefixes_of_the_text_model(name: str, plain: str) -> None:
    assert text_name(name) == plain
