"""Token by token: what a prompt puts into a matrix, and what a recipe makes wrong of what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from transformers import AutoModelForCausalLM

from engine import capture_preparation
from engine.api.errors import FigureError
from engine.api.figures import Figure, HeatMap
from engine.api.jobs import ActivationsRequest, QuantizeRequest
from engine.api.recipe import Choice, Recipe
from engine.api.views import ErrorOf, PictureOf, View
from engine.capture import capture
from engine.capture_preparation import prepared_capture
from engine.checkpoint import open_checkpoint
from engine.figures import figures
from engine.quantize import quantize
from tests.engine.test_calibrate import write_mixture
from tests.tiny import TEXT, write_llama

PROMPT = "What does this sentence do to the model?"
DOWN = "blk.1.ffn_down.weight"
EXPERTS = "blk.1.ffn_down_exps.weight"
RECIPE = Recipe(default=Choice(method="rtn", format="Q8_0"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two models with their activations on the prompt, and those of one on a text."""
    folder = tmp_path_factory.mktemp("prompt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        write_llama(folder / "llama")
        write_mixture(folder / "mixture")
        (folder / "text.txt").write_text("\n".join(TEXT) * 10 + "\n")
        for name in ("llama", "mixture"):
            capture(request(folder, name))
            output = str(folder / f"{name}.gguf")
            quantize(QuantizeRequest(model=str(folder / name), output=output, recipe=RECIPE))
        text = {"prompt": "", "texts": [str(folder / "text.txt")], "windows": 2, "length": 16}
        output = str(folder / "text.activations")
        capture(request(folder, "llama").model_copy(update={**text, "output": output}))
    return folder


def request(folder: Path, name: str) -> ActivationsRequest:
    return ActivationsRequest(
        model=str(folder / name),
        texts=[],
        prompt=PROMPT,
        output=str(folder / f"{name}.activations"),
        threads=1,
    )


class Ran:
    """transformers' own run of the prompt: `inputs` and `outputs` of a matrix, float32 [rows, columns]."""

    def __init__(self, place: Path, name: str) -> None:
        with prepared_capture(request(place, name)) as prepared:
            self.tokens = torch.from_numpy(prepared.tokens)
            self.names = [f"{at} {piece}" for at, piece in enumerate(prepared.ran.pieces)]
        self.model = AutoModelForCausalLM.from_pretrained(place / name, dtype=torch.float32).eval()

    def taken(self, module: str) -> list[torch.Tensor]:
        """The arguments that a module is called with."""
        found = []
        hook = self.model.get_submodule(module).register_forward_pre_hook(
            lambda _, given: found.append(given)
        )
        with torch.no_grad():
            self.model(self.tokens, use_cache=False)
        hook.remove()
        return list(found[0])


def drawn(place: Path, name: str, view: View, file: str = "") -> tuple[Figure | HeatMap, np.ndarray | None]:
    """The last figure, in the end complete."""
    asked = {"source": "activations", "activations": str(place / f"{file or name}.activations")}
    with open_checkpoint(place / name) as checkpoint:
        *_, found = figures(checkpoint, view.model_copy(update=asked))
    assert found.last
    return found.figure, found.values


def rounded(place: Path, name: str, tensor: str) -> np.ndarray:
    """What the recipe makes of the weights, as gguf reads it from the file, float32."""
    found = next(one for one in GGUFReader(place / f"{name}.gguf").tensors if one.name == tensor)
    assert found.tensor_type == GGMLQuantizationType.Q8_0
    return quants.dequantize(found.data, found.tensor_type)


def test_inputs_are_those_of_transformers(place):
    ran = Ran(place, "llama")
    expected = ran.taken("model.layers.1.mlp.down_proj")[0][0].numpy()
    figure, values = drawn(place, "llama", PictureOf(tensor=DOWN))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
    assert figure.rows == ran.names
    assert figure.rows[0].startswith("0 ")
    part, values = drawn(
        place, "llama", PictureOf(tensor=DOWN, first_row=2, stop_row=5, first_column=30, stop_column=40)
    )
    np.testing.assert_allclose(values, expected[2:5, 30:40], rtol=1e-4, atol=1e-6)
    assert part.rows == ran.names[2:5]


def test_a_spike_stays_where_tokens_share_cells(place):
    _, whole = drawn(place, "llama", PictureOf(tensor=DOWN))
    figure, values = drawn(place, "llama", PictureOf(tensor=DOWN, height=3, width=7))
    assert (figure.row_step, figure.rows) == (-(-len(whole) // 3), [])
    assert np.abs(values).max() == np.abs(whole).max()


def test_errors_of_outputs_are_those_of_another_s_rounding(place):
    ran = Ran(place, "llama")
    inputs = ran.taken("model.layers.1.mlp.down_proj")[0][0].numpy().astype(np.float64)
    weights = ran.model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    errors = inputs @ (rounded(place, "llama", DOWN) - weights).T
    figure, values = drawn(place, "llama", PictureOf(tensor=DOWN, what="error", recipe=RECIPE))
    near = {"rtol": 1e-3, "atol": 1e-4 * np.abs(errors).max()}
    np.testing.assert_allclose(values, errors, **near)
    _, part = drawn(
        place, "llama", PictureOf(tensor=DOWN, what="error", recipe=RECIPE, first_column=9, stop_column=33)
    )
    np.testing.assert_allclose(part, errors[:, 9:33], **near)

    outputs = inputs @ weights.T
    figure, _ = drawn(place, "llama", ErrorOf(tensor=DOWN, scope="output", recipe=RECIPE))
    expected = (errors**2).mean(0) / (outputs**2).mean()
    np.testing.assert_allclose(figure.series[0].y, expected, rtol=1e-3)
    figure, _ = drawn(place, "llama", ErrorOf(tensor=DOWN, scope="token", recipe=RECIPE))
    np.testing.assert_allclose(figure.series[0].y, (errors**2).sum(1) / (outputs**2).sum(1), rtol=1e-3)
    assert figure.names == ran.names
    assert figure.rows()[1][:2] == (1, ran.names[1])


@pytest.mark.parametrize("file", ["llama", "text"])
def test_inputs_that_bring_errors(place, file):
    """Of a text, too: mean squares are known of both."""
    from engine.activations import read_activations

    with read_activations(place / f"{file}.activations") as found:
        channels = found.layers[DOWN].channels
    squares = channels.std**2 + channels.mean**2
    weights = Ran(place, "llama").model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    lost = ((rounded(place, "llama", DOWN) - weights).astype(np.float64) ** 2).sum(0)
    expected = squares * lost / (squares * (weights.astype(np.float64) ** 2).sum(0)).mean()
    figure, _ = drawn(place, "llama", ErrorOf(tensor=DOWN, scope="input", recipe=RECIPE), file)
    np.testing.assert_allclose(figure.series[0].y, expected, rtol=1e-3)


def test_experts_have_the_tokens_that_are_routed_to_them(place):
    ran = Ran(place, "mixture")
    ran.model.set_experts_implementation("eager")
    states, chosen, _ = ran.taken("model.layers.1.mlp.experts")
    experts = ran.model.model.layers[1].mlp.experts
    quantized = rounded(place, "mixture", EXPERTS)
    names, inputs, errors = [], [], []
    for token in range(len(states)):
        for expert in sorted(chosen[token].tolist()):
            gate, up = (experts.gate_up_proj[expert] @ states[token]).chunk(2)
            row = (torch.nn.functional.silu(gate) * up).detach().numpy().astype(np.float64)
            weights = experts.down_proj[expert].detach().numpy()
            names.append(f"{ran.names[token]} · expert {expert}")
            inputs.append(row)
            errors.append(row @ (quantized[expert] - weights).T)
    near = {"rtol": 1e-3, "atol": 1e-4 * np.abs(errors).max()}
    # In the file they are one stack, in the folder each is a tensor.
    figure, values = drawn(place, "mixture.gguf", PictureOf(tensor=EXPERTS), "mixture")
    assert figure.rows == names
    np.testing.assert_allclose(values, inputs, rtol=1e-3, atol=1e-6)
    for number in {int(name.rpartition(" ")[2]) for name in names}:
        tensor = f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"
        own = [place for place, name in enumerate(names) if name.endswith(f"expert {number}")]
        _, values = drawn(place, "mixture", PictureOf(tensor=tensor))
        np.testing.assert_allclose(values, np.array(inputs)[own], rtol=1e-3, atol=1e-6)
        _, values = drawn(place, "mixture", PictureOf(tensor=tensor, what="error", recipe=RECIPE))
        np.testing.assert_allclose(values, np.array(errors)[own], **near)


@pytest.mark.parametrize(
    ("view", "file", "told"),
    [
        (PictureOf(tensor=DOWN), "text", "run on a prompt"),
        (ErrorOf(tensor=DOWN, scope="token", recipe=RECIPE), "text", "run on a prompt"),
        (PictureOf(tensor=DOWN, what="code", recipe=RECIPE), "", "no codes"),
        (PictureOf(tensor=DOWN, what="error"), "", "choose a recipe"),
        (ErrorOf(tensor=DOWN, scope="group", recipe=RECIPE), "", "not by group"),
        (PictureOf(tensor="token_embd.weight"), "", "says nothing of model.embed_tokens.weight"),
    ],
)
def test_what_there_is_not_says_so(place, view, file, told):
    with pytest.raises(FigureError, match=told):
        drawn(place, "llama", view, file)


def test_a_long_prompt_keeps_its_statistics_alone(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(capture_preparation, "MOST_WHOLE", 1000)
    long = request(place, "llama").model_copy(update={"output": str(tmp_path / "long.activations")})
    result = capture(long)
    assert result.bytes < (place / "llama.activations").stat().st_size
    view = PictureOf(tensor=DOWN, source="activations", activations=long.output)
    with open_checkpoint(place / "llama") as checkpoint, pytest.raises(FigureError, match="shorter one"):
        list(figures(checkpoint, view))
