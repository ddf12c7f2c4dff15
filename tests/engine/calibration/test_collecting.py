"""What is seen while a block runs, against hooks on the modules and the routing written out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from engine.api.errors import CalibrationError
from engine.architectures import ARCHITECTURES
from engine.calibration.collecting import Sums, SumsWatcher, Target, block_targets
from engine.calibration.importance import Entry

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
TOKENS = torch.arange(3 * 7).reshape(3, 7)


def made(kind: str, **settings: object) -> nn.Module:
    """A model of that kind with weights that make a difference, experts run one by one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | settings)).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3 + (parameter.ndim == 1)
        parameter.requires_grad = False
    model.set_experts_implementation("eager")
    return model


def watched(model: nn.Module, targets: list[Target], block: int = 1) -> dict[str, Entry]:
    with SumsWatcher(targets, model.model.layers[block]) as watcher:
        model(TOKENS, use_cache=False)
    seen = watcher.restart()
    seen.check("here")
    return seen.entries()


def inputs_of(model: nn.Module, *modules: str) -> list[tuple[torch.Tensor, ...]]:
    """What the modules are called with in one pass."""
    found: dict[str, tuple] = {}
    hooks: list[Callable] = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, arguments, name=name: found.__setitem__(name, arguments)
        )
        for name in modules
    ]
    model(TOKENS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in modules]


def test_each_matrix_of_a_llama_block():
    model = made("llama", num_experts_per_tok=None)
    architecture = next(one for one in ARCHITECTURES if one.name == "llama")
    targets = block_targets(architecture, model.config, model.model.layers)[1]
    assert [target.name.split(".", 2)[2] for target in targets] == [
        f"{name}.weight"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    ]
    found = watched(model, targets)
    paths = [f"model.layers.1.{target.parameter.removesuffix('.weight')}" for target in targets]
    for target, (states,) in zip(targets, inputs_of(model, *paths), strict=True):
        entry = found[target.name]
        assert entry.counts.tolist() == [21]
        assert np.allclose(entry.sums[0], (states.double() ** 2).sum((0, 1)).numpy(), rtol=1e-6), target.name


def routed(model: nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums before and behind the gate, and counts, of each expert of block 1: token by token."""
    experts = model.model.layers[1].mlp.experts
    ((hidden, chosen, _),) = inputs_of(model, "model.layers.1.mlp.experts")
    count, width = experts.down_proj.shape[0], experts.down_proj.shape[2]
    before, behind = np.zeros((count, hidden.shape[1])), np.zeros((count, width))
    tokens = np.zeros(count, int)
    for state, own in zip(hidden, chosen, strict=True):
        for expert in own.tolist():
            gate, up = (experts.gate_up_proj[expert] @ state).chunk(2)
            tokens[expert] += 1
            before[expert] += state.double().numpy() ** 2
            behind[expert] += (functional.silu(gate) * up).double().numpy() ** 2
    return before, behind, tokens


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_each_expert_sees_the_tokens_that_are_routed_to_it(kind):
    model = made(kind)
    experts = model.model.layers[1].mlp.experts
    count, hidden, width = experts.down_proj.shape
    targets = [
        Target("gate", "mlp.experts.gate_up_proj", count, hidden),
        Target("up", "mlp.experts.gate_up_proj", count, hidden),
        Target("down", "mlp.experts.down_proj", count, width),
        Target("router", "mlp.gate.weight", 1, hidden),
    ]
    if kind == "qwen2_moe":
        targets.append(Target("shared", "mlp.shared_expert.up_proj.weight", 1, hidden))
        targets.append(Target("shared gate", "mlp.shared_expert_gate.weight", 1, hidden))
    found = watched(model, targets)
    before, behind, tokens = routed(model)
    assert tokens.sum() == 2 * 21
    assert len(set(tokens.tolist())) > 1, "the routing makes no difference"
    for name, expected in (("gate", before), ("up", before), ("down", behind)):
        assert found[name].counts.tolist() == tokens.tolist()
        assert np.allclose(found[name].sums, expected, rtol=1e-5), name
    for target in targets[3:]:  # all tokens pass these
        assert found[target.name].counts.tolist() == [21]
        ((states, *_),) = inputs_of(model, "model.layers.1.mlp.experts")
        assert np.allclose(found[target.name].sums[0], (states.double() ** 2).sum(0).numpy(), rtol=1e-5)


def test_mixtral_s_targets_are_its_stacks_and_its_router():
    model = made("mixtral")
    architecture = next(one for one in ARCHITECTURES if one.name == "mixtral")
    targets = block_targets(architecture, model.config, model.model.layers)[1]
    stacks = {target.name: (target.matrices, target.columns) for target in targets[4:]}
    assert stacks == {
        "blk.1.ffn_gate_inp.weight": (1, 32),
        "blk.1.ffn_gate_exps.weight": (6, 32),
        "blk.1.ffn_up_exps.weight": (6, 32),
        "blk.1.ffn_down_exps.weight": (6, 48),
    }


def test_weights_the_other_way_round():
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **settings)).eval()
    targets = [Target("up", "mlp.c_fc.weight", 1, 32), Target("down", "mlp.c_proj.weight", 1, 128)]
    with torch.no_grad(), SumsWatcher(targets, model.transformer.h[1]) as watcher:
        model(TOKENS, use_cache=False)
    found = watcher.restart().entries()
    inputs = inputs_of(model, "transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj")
    for name, (states,) in zip(("up", "down"), inputs, strict=True):
        assert np.allclose(
            found[name].sums[0], (states.double() ** 2).sum((0, 1)).detach().numpy(), rtol=1e-5
        )


def test_a_product_that_is_written_as_an_operator():
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon", **settings)).eval()
    targets = [Target("qkv", "self_attention.query_key_value.weight", 1, 32)]
    with torch.no_grad(), SumsWatcher(targets, model.transformer.h[1]) as watcher:
        model(TOKENS, use_cache=False)
    ((states,),) = inputs_of(model, "transformer.h.1.self_attention.query_key_value")
    entry = watcher.restart().entries()["qkv"]
    assert entry.counts.tolist() == [21]
    assert np.allclose(entry.sums[0], (states.double() ** 2).sum((0, 1)).detach().numpy(), rtol=1e-5)


def test_what_cannot_be_seen_is_an_error():
    model = made("mixtral")
    model.set_experts_implementation("grouped_mm")  # all experts in one product
    with pytest.raises(CalibrationError, match="here: it cannot be seen what reaches down in this arch"):
        watched(model, [Target("down", "mlp.experts.down_proj", 6, 48)])


def test_what_is_not_finite_is_an_error():
    model = made("llama", num_experts_per_tok=None)
    model.model.layers[0].mlp.down_proj.weight.data[3, 5] = float("inf")
    with pytest.raises(CalibrationError, match=r"here: what reaches q is not finite \(NaN or infinity\)"):
        watched(model, [Target("q", "self_attn.q_proj.weight", 1, 32)])


def test_sums_can_be_stored_and_added():
    targets = [Target("a", "x", 2, 3), Target("b", "y", 1, 2)]
    sums = Sums(targets)
    sums.add("a", 1, np.array([1.0, 2.0, 3.0]), 4)
    sums.add("b", 0, np.array([5.0, 6.0]), 7)
    assert len(sums.values) == Sums.length(targets)
    twice = Sums(targets, sums.values + sums.values).entries()
    assert twice["a"].sums.tolist() == [[0, 0, 0], [2, 4, 6]]
    assert twice["a"].counts.tolist() == [0, 8]
    assert (twice["b"].sums.tolist(), twice["b"].counts.tolist()) == ([[10, 12]], [14])
