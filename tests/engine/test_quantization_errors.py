"""What a recipe makes of a source tensor, against the file that `quantize` writes, read by `gguf`."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from engine import quantized_weights
from engine.api.errors import CheckpointError, ExportError
from engine.api.formats import FORMATS
from engine.api.jobs import QuantizeRequest
from engine.api.recipe import Choice, Recipe, Rule
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import NonFiniteError
from engine.quantization_errors import NotInOutputError, errors_of, measure_errors, quantized
from engine.quantize import quantize
from tests.engine.calibration.matrices import pair, write_gguf
from tests.engine.export.families import write_family
from tests.engine.export.models import mixtral, write_model
from tests.engine.export.random_models import write_random
from tests.tiny import llama_config, llama_tensors, write_folder, write_llama

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 4}
Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """Input channel 300 of block 1's `down` is dead."""
    config = llama_config(**WIDE)
    tensors = llama_tensors(config)
    tensors[DOWN][:, 300] = 0
    return write_folder(tmp_path_factory.mktemp("llama") / "model", config, tensors)


def written(model: Path, recipe: Recipe, folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the file that `quantize` makes, dequantized by `gguf`, in NumPy's shape."""
    file = folder / "out.gguf"
    quantize(QuantizeRequest(model=str(model), output=str(file), recipe=recipe))
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in gguf.GGUFReader(file).tensors
    }


def halves_swapped(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of GGUF's Q or K in the order of transformers: of each head first the even ones."""
    by_head = matrix.reshape(heads, -1, 2, matrix.shape[-1])
    return by_head.swapaxes(1, 2).reshape(matrix.shape)


def check(
    checkpoint: Checkpoint, recipe: Recipe, name: str, stored: np.ndarray, *, transposed: bool = False
) -> None:
    """Values and errors of a tensor whose lines are in the file as `stored`, in the source's order."""
    weights = checkpoint.read(name).reshape(-1, checkpoint.tensors[name].shape[-1])
    weights = weights.T if transposed else weights
    stored = stored.reshape(weights.shape)
    found = quantized(checkpoint, recipe, name)
    assert (found.lines, found.width) == weights.shape
    np.testing.assert_array_equal(found.values(0, len(weights)), stored)
    first, stop = len(weights) // 3, len(weights) // 3 + 7
    np.testing.assert_array_equal(found.values(first, stop), stored[first:stop])

    errors = measure_errors(found)
    assert errors is not None
    assert errors.by_group is not None
    squares = np.square(weights.astype(np.float64))
    lost = np.square(stored.astype(np.float64) - weights)
    assert errors.whole.squared == pytest.approx(lost.sum() / squares.sum())
    if lost.any() and found.is_matrix:
        assert errors.whole.worst_channel_error == pytest.approx(
            lost.sum(axis=0).max() / squares.sum(axis=0).mean()
        )
        assert errors.by_input[errors.whole.worst_channel] == errors.whole.worst_channel_error
    else:
        assert errors.whole.worst_channel is None
    assert errors.whole.mean_squared == pytest.approx(lost.mean())
    assert errors.whole.snr == pytest.approx(-10 * np.log10(lost.sum() / squares.sum()))
    flat, back = weights.reshape(-1).astype(np.float64), stored.reshape(-1).astype(np.float64)
    cosine = flat @ back / np.linalg.norm(flat) / np.linalg.norm(back)
    assert errors.whole.cosine == pytest.approx(cosine, abs=1e-12)
    grouped = (len(squares), -1, found.group)
    np.testing.assert_allclose(errors.by_output, lost.sum(1) / squares.sum(1).mean())
    np.testing.assert_allclose(errors.by_input, lost.sum(0) / squares.sum(0).mean())
    by_group = lost.reshape(grouped).sum(-1) / squares.reshape(grouped).sum(-1).mean()
    np.testing.assert_allclose(errors.by_group, by_group, rtol=1e-6)
    for part in (errors.by_output, errors.by_input, errors.by_group):
        assert part.mean() == pytest.approx(errors.whole.squared, rel=1e-5)


def all_in(format_name: str, **more: object) -> Recipe:
    return Recipe(default=Choice(format=format_name), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_name", "group", "block", "levels"),
    [("Q4_K", 32, 256, 16), ("Q4_0", 32, 32, 16), ("Q6_K", 16, 256, 64), ("Q8_0", 32, 32, 255)],
)
def test_rows_and_errors_are_those_of_the_file(llama, tmp_path, format_name, group, block, levels):
    recipe = all_in(format_name)
    file = written(llama, recipe, tmp_path)
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, recipe, DOWN)
        assert (found.format, found.method, found.group, found.block) == (format_name, "search", group, block)
        assert (found.levels, found.signed) == (levels, format_name != "Q4_K")
        check(checkpoint, recipe, DOWN, file["blk.1.ffn_down.weight"])
        check(checkpoint, recipe, Q, halves_swapped(file["blk.0.attn_q.weight"], 16))
        output = "model.layers.1.self_attn.o_proj.weight"
        check(checkpoint, recipe, output, file["blk.1.attn_output.weight"])


def test_importance_weighs_as_in_the_file(llama, tmp_path):
    generator = np.random.default_rng(1)
    known = pair("blk.1.ffn_down.weight", [generator.exponential(size=512)], [40])
    known |= pair("blk.0.attn_q.weight", [generator.exponential(size=256)], [40])
    matrix = write_gguf(tmp_path / "i.gguf", known, datasets=["a.txt"], chunk_count=1, chunk_size=512)
    plain, weighed = all_in("IQ2_XS"), all_in("IQ2_XS", imatrix=str(matrix))
    file = written(llama, weighed, tmp_path)
    with open_checkpoint(llama) as checkpoint:
        check(checkpoint, weighed, DOWN, file["blk.1.ffn_down.weight"])
        check(checkpoint, weighed, Q, halves_swapped(file["blk.0.attn_q.weight"], 16))
        without = quantized(checkpoint, plain, DOWN).values(0, 8)
        assert (without != file["blk.1.ffn_down.weight"][:8]).any()


def test_floats_have_errors_and_no_codes(llama, tmp_path):
    recipe = all_in("F16")
    file = written(llama, recipe, tmp_path)
    with open_checkpoint(llama) as checkpoint:
        check(checkpoint, recipe, DOWN, file["blk.1.ffn_down.weight"])
        found = quantized(checkpoint, recipe, DOWN)
        assert (found.format, found.method, found.group, found.levels) == ("F16", "", 512, 0)
        errors = measure_errors(found)
        whole = errors.whole
        assert (whole.saturation, whole.levels_used, whole.levels, errors.clip) == (None, None, None, None)
        assert errors.by_input[300] == 0  # dead before and after
        with pytest.raises(ExportError, match="becomes F16, floats one by one"):
            found.codes(0, 1)
        with pytest.raises(ExportError, match="has no levels"):
            found.values_at(0, 0)


def test_a_kept_tensor_loses_nothing(llama):
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, all_in("Q2_K"), NORM)
        assert (found.format, found.lines, found.width) == ("F32", 1, 256)
        errors = measure_errors(found)
        assert (errors.whole.squared, errors.whole.snr, errors.whole.cosine) == (0, None, pytest.approx(1))


@pytest.mark.parametrize("format_name", ["F16", "Q8_0"])
def test_weights_that_all_become_zero_are_lost(tmp_path, format_name):
    config = llama_config()
    tensors = llama_tensors(config)
    tensors[DOWN] = torch.randn(tensors[DOWN].shape, generator=torch.Generator().manual_seed(1)) * 1e-9
    folder = write_folder(tmp_path / "model", config, tensors, tokenizer=None)
    with open_checkpoint(folder) as checkpoint:
        whole = measure_errors(quantized(checkpoint, all_in(format_name), DOWN)).whole
    assert (whole.squared, whole.snr, whole.cosine) == (1, 0, 0)
    assert not np.signbit(whole.snr)


def test_a_tensor_stored_so_already_is_copied(llama, tmp_path):
    recipe = all_in("Q4_0")
    file = written(llama, recipe, tmp_path)["blk.1.ffn_down.weight"]
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        found = quantized(checkpoint, recipe, "blk.1.ffn_down.weight")
        assert (found.format, found.method) == ("Q4_0", "copied")
        np.testing.assert_array_equal(found.values(0, 256), file)
        assert np.unique(found.codes(0, 256)).tolist() == list(range(-8, 8))
        errors = measure_errors(found)
        assert (errors.whole.squared, errors.whole.snr, errors.whole.levels_used) == (0, None, 16)


def test_fused_rows_of_phi3(tmp_path):
    model, recipe = write_family(tmp_path / "phi3", "phi3"), all_in("Q4_0")
    file = written(model, recipe, tmp_path)
    with open_checkpoint(model) as checkpoint:
        check(checkpoint, recipe, "model.layers.0.self_attn.qkv_proj.weight", file["blk.0.attn_qkv.weight"])
        check(checkpoint, recipe, "model.layers.1.mlp.gate_up_proj.weight", file["blk.1.ffn_up.weight"])


def test_gpt2_is_stored_transposed(tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_weights, "TRANSPOSED_PIECE", 64 * 30)  # which cuts 192 columns unevenly
    model, recipe = write_family(tmp_path / "gpt2", "gpt2"), all_in("Q4_0")
    file = written(model, recipe, tmp_path)
    name = "transformer.h.0.attn.c_attn.weight"
    with open_checkpoint(model) as checkpoint:
        stored = file["blk.0.attn_qkv.weight"]
        check(checkpoint, recipe, name, stored, transposed=True)
        found = quantized(checkpoint, recipe, name)
        assert (found.lines, found.width) == (192, 64)
        assert np.isin(stored[101, 32:64], found.values_at(101, 50)).all()


def test_gemma_s_norms_are_stored_plus_one(tmp_path):
    model, recipe = write_family(tmp_path / "gemma", "gemma2"), all_in("Q8_0")
    file = written(model, recipe, tmp_path)["blk.0.attn_norm.weight"]
    with open_checkpoint(model) as checkpoint:
        found = quantized(checkpoint, recipe, NORM).values(0, 1)[0]
        np.testing.assert_array_equal(found, file - np.float32(1))
        np.testing.assert_allclose(found, checkpoint.read(NORM), atol=2e-7)


def test_each_expert_has_its_own_importance(tmp_path):
    """Mixtral's are stored one by one, and one that saw no token is quantized without importance."""
    model = write_model(tmp_path / "mixtral", **mixtral())
    sums = np.random.default_rng(2).exponential(size=(4, 160))
    known = pair("blk.0.ffn_down_exps.weight", list(sums), [5, 0, 7, 9])
    matrix = write_gguf(tmp_path / "i.gguf", known, datasets=["a.txt"], chunk_count=1, chunk_size=512)
    recipe = all_in("Q4_0", imatrix=str(matrix))
    file = written(model, recipe, tmp_path)["blk.0.ffn_down_exps.weight"]
    name = "model.layers.0.block_sparse_moe.experts.{}.w2.weight"
    with open_checkpoint(model) as checkpoint:
        for expert in range(4):
            check(checkpoint, recipe, name.format(expert), file[expert])
        with pytest.raises(NotInOutputError, match=r"is 4 tensors in the source .*: take one of them"):
            quantized(checkpoint, recipe, "blk.0.ffn_down_exps.weight")
    with open_checkpoint(tmp_path / "out.gguf") as stack:  # as GGUF has them, and so with each one's row
        weights = stack.read("blk.0.ffn_down_exps.weight").reshape(-1, 160)
        again = all_in("Q4_1", imatrix=str(matrix))
        folder = tmp_path / "again"
        folder.mkdir()
        file = written(tmp_path / "out.gguf", again, folder)["blk.0.ffn_down_exps.weight"]
        assert weights.shape == (4 * 64, 160)
        check(stack, again, "blk.0.ffn_down_exps.weight", file)


def test_one_tensor_of_the_source_may_be_two_of_the_output(tmp_path):
    """Qwen 3's experts, gate over up in one tensor, of which each gets a format of its own."""
    sizes = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    more = {"head_dim": 16, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    model = write_random(tmp_path / "qwen", "qwen3_moe", stacked=True, **sizes, **more)
    recipe = Recipe(default=Choice(format="Q8_0"), rules=[Rule(match="ffn_up_exps", format="NVFP4")])
    file = written(model, recipe, tmp_path)
    parts = [file[f"blk.1.ffn_{part}_exps.weight"] for part in ("gate", "up")]
    name = "model.layers.1.mlp.experts.gate_up_proj"
    with open_checkpoint(model) as checkpoint:
        found = quantized(checkpoint, recipe, name)
        assert (found.format, found.method, found.group) == ("Q8_0 and NVFP4", "search", 16)
        assert found.levels == 255
        check(checkpoint, recipe, name, np.concatenate(parts, axis=1))
        assert quantized(checkpoint, recipe, "blk.1.ffn_up_exps.weight").tensor == name


GRIDS = [name for name, info in FORMATS.items() if not info.exact]


@pytest.mark.parametrize("format_name", GRIDS)
def test_codes_rebuild_the_values(llama, format_name):
    """In each group values are a line through the codes, and all are levels of its grid."""
    recipe = Recipe(default=Choice(format=format_name, method="rtn"))
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, recipe, DOWN)
        values, codes = (
            found.values(0, 3).reshape(-1, found.group),
            found.codes(0, 3).reshape(-1, found.group),
        )
        assert found.codes(0, 3).dtype == np.int16
        for group, (some, their_codes) in enumerate(zip(values, codes, strict=True)):
            step, shift = np.polyfit(their_codes, some.astype(np.float64), 1)
            np.testing.assert_allclose(their_codes * step + shift, some, rtol=1e-5, atol=1e-6)
            line, number = divmod(group, found.width // found.group)
            levels = found.values_at(line, number * found.group)
            assert len(levels) == found.levels
            assert np.isin(some, levels).all()


def test_what_is_said_of_the_codes(llama):
    recipe = all_in("Q4_0")
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, recipe, DOWN)
        codes, errors = found.codes(0, 256), measure_errors(found)
        ends = [found.values_at(row, column)[[0, -1]] for row in range(256) for column in range(0, 512, 32)]
    assert errors.whole.saturation == np.isin(codes, [-8, 7]).mean()
    assert (errors.whole.levels_used, errors.whole.levels) == (len(np.unique(codes)), 16)
    assert errors.clip == (np.min(ends), np.max(ends))


def test_any_number_of_threads_and_no_groups_give_the_same_numbers(llama, monkeypatch):
    monkeypatch.setattr(quantized_weights, "PIECE", 512 * 7)
    with open_checkpoint(llama) as checkpoint:
        found = quantized(checkpoint, all_in("Q4_K"), DOWN)
        one, three = measure_errors(found, threads=1), measure_errors(found, threads=3, groups=False)
        assert one.whole == three.whole
        np.testing.assert_array_equal(one.by_input, three.by_input)
        np.testing.assert_array_equal(one.by_output, three.by_output)
        assert three.by_group is None
        asked = iter([True, True, False])
        assert measure_errors(found, lambda: next(asked)) is None
        assert next(asked, "spent") == "spent"


def test_errors_are_remembered_as_long_as_nothing_of_the_tensor_changes(llama, tmp_path):
    elsewhere = Rule(match="attn_q", format="Q2_K")
    known = pair("blk.1.ffn_down.weight", [np.arange(512)], [40])
    matrix = write_gguf(tmp_path / "i.gguf", known, datasets=["a.txt"], chunk_count=1, chunk_size=512)
    with open_checkpoint(llama) as checkpoint:
        first = errors_of(quantized(checkpoint, all_in("Q4_0"), DOWN))
    with open_checkpoint(llama) as checkpoint:
        same = quantized(checkpoint, all_in("Q4_0", rules=[elsewhere]), DOWN)
        assert errors_of(same, lambda: False) is first
        for other in (all_in("Q5_0"), all_in("Q4_0", effort="fast"), all_in("Q4_0", imatrix=str(matrix))):
            assert errors_of(quantized(checkpoint, other, DOWN), lambda: False) is None
        assert errors_of(quantized(checkpoint, all_in("Q4_0"), Q), lambda: False) is None


def test_names_that_cannot_be_answered(tmp_path):
    config = llama_config(tie_word_embeddings=True)
    tensors = llama_tensors(config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["vision_tower.patch.weight"] = torch.zeros(2, 2)
    tensors[NORM][3] = torch.inf
    model, recipe = write_folder(tmp_path / "model", config, tensors), all_in("Q8_0")
    with open_checkpoint(model) as checkpoint:
        with pytest.raises(NotInOutputError, match=r"lm_head.weight is not in the output"):
            quantized(checkpoint, recipe, "lm_head.weight")
        with pytest.raises(NotInOutputError, match="outside of the text model"):
            quantized(checkpoint, recipe, "vision_tower.patch.weight")
        with pytest.raises(CheckpointError, match=r"has no tensor blk\.9\.attn_q"):
            quantized(checkpoint, recipe, "blk.9.attn_q.weight")
        assert quantized(checkpoint, recipe, "blk.0.attn_q.weight").tensor == Q
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            measure_errors(quantized(checkpoint, recipe, NORM))


def test_a_changed_importance_matrix_is_read_again(tmp_path):
    model = write_llama(tmp_path / "model")
    matrix, found = tmp_path / "i.gguf", []
    with open_checkpoint(model) as checkpoint:
        for seed in (1, 2):
            sums = np.random.default_rng(seed).exponential(size=(1, 64))
            known = pair("blk.0.attn_v.weight", list(sums), [seed])
            write_gguf(matrix, known, datasets=["a.txt"], chunk_count=seed, chunk_size=512)
            recipe = all_in("Q4_0", imatrix=str(matrix))
            found.append(quantized(checkpoint, recipe, "blk.0.attn_v.weight").values(0, 32))
    assert (found[0] != found[1]).any()
