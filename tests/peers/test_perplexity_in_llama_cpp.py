"""Our perplexity against llama.cpp's, on files that we wrote and on files that llama.cpp wrote.

llama.cpp runs F32, F16 and BF16 weights as they are; its own figure for a quantized file includes the
rounding of activations to 8 bits, so the weights alone are compared through their copy in F32.
"""

from pathlib import Path

import pytest

from engine.api.jobs import QuantizeRequest
from engine.checkpoint import open_checkpoint
from engine.evaluate import evaluate_files
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from tests.peers.llama import dequantized_copy, perplexity

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "resources" / "sample-model"
TEXT = ROOT / "resources" / "text" / "evaluation.txt"
SHARED = ROOT.parent / "shared" / "data"
WINDOWS = 4

SAME_WEIGHTS = 5e-4
OWN_ROUNDING = 1e-2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Gives the sample model's GGUF file of a preset, written once."""
    folder = tmp_path_factory.mktemp("written")

    def write(preset: str) -> Path:
        output = folder / f"{preset}.gguf"
        if not output.exists():
            with pytest.MonkeyPatch.context() as patch, open_checkpoint(SAMPLE) as checkpoint:
                patch.setenv("XDG_STATE_HOME", str(folder))
                recipe = recipe_for_preset(checkpoint, preset)
                quantize(QuantizeRequest(model=str(SAMPLE), output=str(output), recipe=recipe))
        return output

    return write


@pytest.mark.parametrize("preset", ["F16", "BF16"])
def test_weights_that_llama_cpp_runs_as_they_are(written, preset):
    ours = evaluate_files(written(preset), TEXT, windows=WINDOWS)
    assert ours.windows == WINDOWS
    assert ours.perplexity == pytest.approx(
        perplexity(written(preset), TEXT.read_text(), WINDOWS), rel=SAME_WEIGHTS
    )
    assert not any("quantized" in note for note in ours.notes)


def test_a_folder_and_its_file_measure_the_same(written):
    """The source is BF16, so nothing is lost on the way."""
    report = evaluate_files(written("BF16"), TEXT, reference=SAMPLE, windows=WINDOWS)
    assert report.perplexity == pytest.approx(report.reference_perplexity, rel=1e-6)
    assert report.kl_max < 1e-6


@pytest.mark.parametrize("preset", ["Q8_0", "Q4_0", "Q4_K_M"])
def test_quantized_weights(written, tmp_path, preset):
    file = written(preset)
    ours = evaluate_files(file, TEXT, reference=SAMPLE, windows=WINDOWS)
    text = TEXT.read_text()
    same_weights = perplexity(dequantized_copy(file, tmp_path / "f32.gguf"), text, WINDOWS)
    assert ours.perplexity == pytest.approx(same_weights, rel=SAME_WEIGHTS)
    assert ours.perplexity == pytest.approx(perplexity(file, text, WINDOWS), rel=OWN_ROUNDING)
    assert any("llama.cpp also rounds activations to 8 bits" in note for note in ours.notes)
    loss = {"Q8_0": (1e-5, 1e-3), "Q4_K_M": (1e-3, 2e-2), "Q4_0": (1e-2, 8e-2)}[preset]
    assert loss[0] < ours.kl_mean < loss[1]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok361"])
def test_files_that_llama_cpp_wrote(tmp_path, name, kind):
    file = SHARED / "models" / name / f"{name}-{kind}.gguf"
    text = SHARED / "text" / "tiny.utf8"
    if not file.exists() or not text.exists():
        pytest.skip(f"no {file.name} beside the checkout")
    ours = evaluate_files(file, text, windows=WINDOWS)
    content = text.read_text()
    same_weights = perplexity(dequantized_copy(file, tmp_path / "f32.gguf"), content, WINDOWS)
    assert ours.perplexity == pytest.approx(same_weights, rel=SAME_WEIGHTS)
    assert ours.perplexity == pytest.approx(perplexity(file, content, WINDOWS), rel=OWN_ROUNDING)
