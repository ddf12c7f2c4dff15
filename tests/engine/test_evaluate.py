"""Figures against a plain computation with transformers' whole model, and everything that is refused."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import scores, subjects
from engine.api.errors import EvaluationError, TokenizerError, UserError
from engine.api.progress import Progress
from engine.calibration.windows import ShortTextError, UnreadableTextError
from engine.checkpoint import open_checkpoint
from engine.evaluate import evaluate_files as evaluate
from engine.scores import NotFiniteError
from engine.subjects import PackedWeightsError, TokenizersDifferError
from engine.tokenizer import load_tokenizer
from tests.tiny import TEXT, llama_config, write_llama

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two models that share a tokenizer, and a text of some 3,000 tokens."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_llama(folder / "reference", seed=0)
    write_llama(folder / "model", seed=0)
    file = folder / "model" / "model.safetensors"
    generator = torch.Generator().manual_seed(3)
    changed = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(changed, file, metadata={"format": "pt"})
    (folder / "text").write_text("\n".join(TEXT) * 10 + "\n")
    return folder


def plain_figures(place: Path, protocol: str, windows: int) -> dict[str, float]:
    """The same figures from whole logits in float64, as the two protocols are published."""
    with open_checkpoint(place / "reference") as checkpoint:
        tokenizer = load_tokenizer(checkpoint)
    text = (place / "text").read_text()
    if protocol == "llama.cpp":
        window, first = 512, 256
        ids = torch.tensor([tokenizer.bos, *tokenizer.encode(text[:-1])])
    else:
        window, first = 256, 0  # the model's context
        ids = torch.tensor(tokenizer.encode(text))
    tokens = ids[: windows * window].reshape(windows, window).clone()
    if protocol == "llama.cpp":
        tokens[:, 0] = tokenizer.bos
    targets = tokens[:, first + 1 :]
    log_p = {}
    for name in ("model", "reference"):
        model = AutoModelForCausalLM.from_pretrained(place / name, dtype=torch.float32)
        with torch.no_grad():
            logits = model(tokens).logits[:, first:-1].double()
        log_p[name] = logits - torch.logsumexp(logits, -1, keepdim=True)
    nll = {name: -torch.take_along_dim(p, targets[..., None], -1).flatten() for name, p in log_p.items()}
    kl = torch.nn.functional.kl_div(log_p["model"], log_p["reference"], log_target=True, reduction="none")
    kl = kl.sum(-1).flatten().sort().values
    at = 0.99 * (len(kl) - 1)
    low = math.floor(at)
    same = log_p["model"].argmax(-1) == log_p["reference"].argmax(-1)
    mean = nll["model"].mean()
    variance = (nll["model"] ** 2).mean() - mean**2
    return {
        "perplexity": mean.exp().item(),
        "perplexity_error": (mean.exp() * (variance / (len(kl) - 1)).sqrt()).item(),
        "reference_perplexity": nll["reference"].mean().exp().item(),
        "kl_mean": kl.mean().item(),
        "kl_p99": (kl[low] + (at - low) * (kl[low + 1] - kl[low])).item(),
        "kl_max": kl[-1].item(),
        "top1_agreement": same.double().mean().item(),
        "tokens": targets.numel(),
    }


@pytest.mark.parametrize(("protocol", "windows"), [("llama.cpp", 5), ("gptq", 7)])
def test_figures_are_those_of_a_plain_computation(place, protocol, windows):
    report = evaluate(place / "model", place / "text", place / "reference", protocol, windows)
    expected = plain_figures(place, protocol, windows)
    assert expected["kl_mean"] > 0.01
    assert 0.1 < expected["top1_agreement"] < 0.999
    figures = report.model_dump()
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert report.windows == windows
    assert report.protocol == protocol


def test_chunks_of_positions_change_nothing(place, monkeypatch):
    whole = evaluate(place / "model", place / "text", place / "reference", windows=2)
    monkeypatch.setattr(scores, "CHUNK_LOGITS", 7 * 512)
    chunked = evaluate(place / "model", place / "text", place / "reference", windows=2)
    assert chunked.kl_mean == pytest.approx(whole.kl_mean, rel=1e-6)
    assert chunked.perplexity == pytest.approx(whole.perplexity, rel=1e-7)


def test_a_model_against_itself_loses_nothing(place):
    report = evaluate(place / "model", place / "text", place / "model", windows=2)
    assert (report.kl_mean, report.kl_max, report.top1_agreement) == (0, 0, 1)
    assert report.perplexity == report.reference_perplexity


def test_the_report_can_be_traced(place):
    report = evaluate(place / "model", place / "text", windows=99)
    values = json.loads(report.model_dump_json())
    assert {
        "perplexity", "perplexity_error", "kl_mean", "kl_p99", "top1_agreement", "tokens", "window",
        "protocol", "seconds",
    } <= values.keys()  # fmt: skip
    assert values["kl_mean"] is None
    assert values["text_sha256"] == hashlib.sha256((place / "text").read_bytes()).hexdigest()
    weights = place / "model" / "model.safetensors"
    assert values["model_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert values["windows"] * 255 == values["tokens"]
    assert f"The text has {values['windows']} full windows; 99 were asked for." in values["notes"]
    assert f"{place / 'model'} was made for 256 tokens; windows of 512 go beyond." in values["notes"]


def test_progress_counts_to_its_total(place):
    events: list[Progress] = []
    evaluate(place / "model", place / "text", place / "reference", windows=5, listener=events.append)
    assert {event.total for event in events} == {5 * (2 + 2 + 1)}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == 25
    assert events[0].item == "model, block 1 of 2"
    assert {(event.stage, event.unit) for event in events} == {("evaluate", "passes")}


def test_a_cancelled_measurement_stops(place):
    def cancel(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(place / "model", place / "text", windows=1, listener=cancel)


def test_texts_that_cannot_be_measured(place, tmp_path):
    (tmp_path / "short").write_text("Too short.")
    with pytest.raises(ShortTextError, match=r"short has \d+ tokens, fewer than one window of 512"):
        evaluate(place / "model", tmp_path / "short")
    (tmp_path / "empty").touch()
    with pytest.raises(ShortTextError, match="empty is empty"):
        evaluate(place / "model", tmp_path / "empty")
    with pytest.raises(UnreadableTextError, match="No such file"):
        evaluate(place / "model", tmp_path / "missing")


def test_models_that_do_not_share_a_tokenizer(place, tmp_path):
    other = write_llama(tmp_path / "other", tokenizer="spm")
    with pytest.raises(TokenizersDifferError, match="do not share a tokenizer"):
        evaluate(place / "model", place / "text", other)


def test_a_tokenizer_larger_than_the_model(place, monkeypatch):
    monkeypatch.setattr(subjects, "load_tokenizer", lambda *asked: SimpleNamespace(size=600))
    with pytest.raises(EvaluationError, match="tokenizer has 600 tokens, the model knows 512"):
        evaluate(place / "model", place / "text")


def test_a_model_that_lacks_what_measuring_needs(place, tmp_path):
    no_tokenizer = write_llama(tmp_path / "bare", tokenizer=None)
    with pytest.raises(TokenizerError):
        evaluate(no_tokenizer, place / "text")
    lone = tmp_path / "lone" / "model.safetensors"
    lone.parent.mkdir()
    lone.write_bytes((place / "model" / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"no config\.json"):
        evaluate(lone, place / "text")
    unknown = write_llama(tmp_path / "unknown")
    config = llama_config(model_type="llama9")
    (unknown / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="llama9"):
        evaluate(unknown, place / "text")


def test_weights_packed_by_another_quantizer_are_named(place, tmp_path):
    folder = write_llama(tmp_path / "packed")
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in [name for name in weights if name.endswith("proj.weight")]:
        rows, columns = weights.pop(name).shape
        layer = name.removesuffix("weight")
        weights[layer + "qweight"] = torch.zeros(columns // 8, rows, dtype=torch.int32)
        weights[layer + "qzeros"] = torch.zeros(columns // 32, rows // 8, dtype=torch.int32)
        weights[layer + "scales"] = torch.ones(columns // 32, rows)
        weights[layer + "g_idx"] = torch.arange(columns, dtype=torch.int32) // 32
    save_file(weights, file, metadata={"format": "pt"})
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(llama_config(quantization_config=settings)))
    with pytest.raises(PackedWeightsError, match=r"packed is quantized already \(GPTQ, 4 bits"):
        evaluate(folder, place / "text")


def test_transformers_own_warnings_are_not_shown(place, tmp_path):
    """In a process of its own: what transformers has warned of once, it does not repeat."""
    folder = write_llama(tmp_path / "model", config={"bos_token_id": 10**9})
    script = (
        "import sys; from pathlib import Path; from engine.evaluate import evaluate_files\n"
        "print(evaluate_files(Path(sys.argv[1]), Path(sys.argv[2]), windows=1).windows)"
    )
    command = [sys.executable, "-c", script, str(folder), str(place / "text")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_arguments_that_make_no_sense(place):
    with pytest.raises(EvaluationError, match=r'no protocol "wiki": take llama\.cpp or gptq'):
        evaluate(place / "model", place / "text", protocol="wiki")
    with pytest.raises(EvaluationError, match="0 windows"):
        evaluate(place / "model", place / "text", windows=0)


def test_a_broken_model_is_named_not_measured(place, tmp_path):
    folder = write_llama(tmp_path / "broken")
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.down_proj.weight"][3, 5] = np.nan
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(NotFiniteError, match="broken predicts values that are not finite"):
        evaluate(folder, place / "text", windows=1)


def test_units_are_named_by_all_that_the_bits_depend_on(place, tmp_path):
    """So nothing that was made of other files, or on other threads, is ever gone on with."""

    def kind(**changes: object) -> str:
        asked = {"model": model, "text": text, "reference": place / "reference", "windows": 3, "threads": 2}
        with subjects.prepare(**(asked | changes)) as prepared:
            return prepared.kind

    model = write_llama(tmp_path / "model")
    text = tmp_path / "text"
    text.write_bytes((place / "text").read_bytes())
    kinds = [kind()]
    assert kind() == kinds[0]
    for changes in ({"windows": 2}, {"threads": 1}, {"reference": None}, {"protocol": "gptq"}):
        kinds.append(kind(**changes))
    kinds.append(kind(model=place / "reference", reference=model))
    text.write_text("A" + text.read_text())
    kinds.append(kind())
    (model / "config.json").write_text(json.dumps(llama_config(rms_norm_eps=1e-6)))
    kinds.append(kind())
    file = model / "model.safetensors"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    kinds.append(kind())
    assert len(set(kinds)) == len(kinds) == 9
