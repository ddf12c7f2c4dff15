"""Statistics of activations as a job: against transformers' own hooks, and the same bytes if broken off."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import capture_preparation, states, streaming
from engine.activations import Activations, read_activations
from engine.api.errors import CalibrationError, MemoryLimitError, OutputError
from engine.api.jobs import LEAST_MEMORY, ActivationsRequest, Stopped
from engine.api.statistics import LARGE, PERCENTS
from engine.capture import capture
from engine.capture_preparation import prepared_capture
from engine.jobs.folder import list_jobs
from engine.resume import resume
from tests.engine.test_calibrate import write_mixture
from tests.tiny import TEXT, llama_config, llama_tensors, write_folder, write_llama

WINDOWS, LENGTH, BATCH = 5, 33, 70
"""In batches of two, two and one."""


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(states, "SAVING_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", float("inf"))
    monkeypatch.setattr(streaming, "BATCH_TOKENS", BATCH)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A Llama with grouped heads and biases, a mixture of experts, and a text."""
    folder = tmp_path_factory.mktemp("capture")
    write_llama(folder / "llama", config={"attention_bias": True, "tie_word_embeddings": True})
    write_mixture(folder / "mixture")
    (folder / "text.txt").write_text("\n".join(TEXT) * 10 + "\n")
    return folder


def asked(place: Path, name: str = "llama", **changes: object) -> ActivationsRequest:
    known = {"texts": [str(place / "text.txt")], "windows": WINDOWS, "length": LENGTH, "threads": 1}
    return ActivationsRequest(model=str(place / name), **(known | changes))


def captured(request: ActivationsRequest) -> Activations:
    return read_activations(Path(capture(request).output))


def tokens_of(request: ActivationsRequest) -> torch.Tensor:
    with prepared_capture(request) as prepared:
        return torch.from_numpy(prepared.tokens)


class Hooked:
    """What transformers' modules take in ("in"), and what blocks give ("out"): float32 [tokens, columns]."""

    def __init__(self, folder: Path, tokens: torch.Tensor) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.seen: dict[str, np.ndarray] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(self._taking(name))
                module.register_forward_hook(self._giving(f"{name} out"))
            elif name.count(".") == 2 and ".layers." in name:
                module.register_forward_hook(self._giving(name))
        with torch.no_grad():
            self.model(tokens, use_cache=False)

    def _taking(self, name):
        def hook(module, arguments):
            self.seen[name] = arguments[0].reshape(-1, arguments[0].shape[-1]).numpy()

        return hook

    def _giving(self, name):
        def hook(module, arguments, result):
            result = result[0] if isinstance(result, tuple) else result
            self.seen[name] = result.reshape(-1, result.shape[-1]).numpy()

        return hook


MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def assert_tells(found: Activations, tensor: str, rows: np.ndarray) -> None:
    layer = found.layers[tensor]
    own, exact = layer.channels, rows.astype(np.float64)
    near = {"rtol": 1e-4, "atol": 1e-5}
    assert layer.rows == layer.sampled == len(rows)
    np.testing.assert_allclose(own.min, exact.min(0), **near)
    np.testing.assert_allclose(own.max, exact.max(0), **near)
    np.testing.assert_allclose(own.mean, exact.mean(0), **near)
    np.testing.assert_allclose(own.std, exact.std(0), **near)
    np.testing.assert_allclose(own.absmax, np.abs(exact).max(0), **near)
    away = exact - exact.mean(0)
    np.testing.assert_allclose(own.kurtosis, (away**4).mean(0) / (away**2).mean(0) ** 2, rtol=1e-3)
    np.testing.assert_allclose(layer.percentiles, np.percentile(exact, PERCENTS, axis=0), **near)
    np.testing.assert_allclose(layer.mean_square, (exact**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(layer.beyond, (np.abs(exact) >= LARGE).mean(0), atol=1.5 / len(rows))
    assert layer.distribution.total == rows.size
    assert abs(layer.peaks[0].value) == pytest.approx(np.abs(exact).max(), rel=1e-4)


def test_what_transformers_own_hooks_see(place):
    request = asked(place)
    tokens = tokens_of(request)
    hooked = Hooked(place / "llama", tokens)
    with captured(request) as found:
        assert len(found.tensors) == 2 * 8
        assert found.ran.tokens == tokens.numel() == WINDOWS * LENGTH
        for block in range(2):
            for role, module in MODULES.items():
                rows = hooked.seen[f"model.layers.{block}.{module}"]
                assert_tells(found, f"blk.{block}.{role}.weight", rows)
            assert_tells(found, f"blk.{block}.output", hooked.seen[f"model.layers.{block}"])
        ranges = found.layers["blk.1.output"].batches
    rows = hooked.seen["model.layers.1"].reshape(WINDOWS, -1)
    parts = [rows[:2], rows[2:4], rows[4:]]
    np.testing.assert_allclose(ranges, [(part.min(), part.max()) for part in parts], rtol=1e-4)


def test_largest_values_name_their_tokens(place):
    request = asked(place)
    tokens = tokens_of(request)
    rows = Hooked(place / "llama", tokens).seen["model.layers.1.mlp.down_proj"]
    with captured(request) as found:
        peaks = found.layers["blk.1.ffn_down.weight"].peaks
    assert len(peaks) == 16
    order = np.argsort(-np.abs(rows).max(1))[:16]
    assert [peak.window * LENGTH + peak.position for peak in peaks] == order.tolist()
    assert [peak.channel for peak in peaks] == np.abs(rows[order]).argmax(1).tolist()
    with prepared_capture(request) as prepared:
        texts = [prepared.subject.tokenizer.text_of(int(tokens.flatten()[at])) for at in order]
    assert [peak.token for peak in peaks] == texts


def test_ranges_of_the_cache_are_those_behind_the_rotary_embedding(place):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    request = asked(place)
    tokens = tokens_of(request)
    hooked = Hooked(place / "llama", tokens)
    with captured(request) as found:
        caches = found.caches
    positions = torch.arange(LENGTH)[None]
    cos, sin = hooked.model.model.rotary_emb(torch.zeros(1), positions)
    for block in range(2):
        name = f"model.layers.{block}.self_attn"
        keys, values = (
            torch.from_numpy(hooked.seen[f"{name}.{part}_proj out"]).reshape(WINDOWS, LENGTH, 2, 16)
            for part in "kv"
        )
        keys, _ = apply_rotary_pos_emb(keys.transpose(1, 2), keys.transpose(1, 2), cos, sin)
        for own, states_ in ((caches[block].keys, keys.transpose(1, 2)), (caches[block].values, values)):
            expected = np.stack([states_.numpy().min((0, 1)), states_.numpy().max((0, 1))])
            np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_experts_see_the_tokens_that_are_routed_to_them(place):
    request = asked(place, "mixture")
    tokens = tokens_of(request)
    model = AutoModelForCausalLM.from_pretrained(place / "mixture", dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    taken = []
    experts = model.model.layers[1].mlp.experts
    experts.register_forward_pre_hook(lambda module, arguments: taken.append(arguments))
    with torch.no_grad():
        model(tokens, use_cache=False)
    states_, chosen, _ = taken[0]
    places, rows = [], []
    for token in range(len(states_)):
        for expert in chosen[token].tolist():
            gate, up = (experts.gate_up_proj[expert] @ states_[token]).chunk(2)
            rows.append((torch.nn.functional.silu(gate) * up).detach().numpy())
            places.append(token)
    with captured(request) as found:
        gate = found.layers["blk.1.ffn_gate_exps.weight"]
        down = found.layers["blk.1.ffn_down_exps.weight"]
        router = found.layers["blk.1.ffn_gate_inp.weight"]
    assert (gate.rows, down.rows, router.rows) == (2 * tokens.numel(), 2 * tokens.numel(), tokens.numel())
    rows = np.array(rows, np.float64)
    np.testing.assert_allclose(down.channels.mean, rows.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(down.channels.absmax, np.abs(rows).max(0), rtol=1e-4)
    worst = np.abs(rows).max(1).argmax()
    peak = down.peaks[0]
    assert peak.window * LENGTH + peak.position == places[worst]
    assert peak.channel == np.abs(rows[worst]).argmax()
    np.testing.assert_allclose(gate.channels.absmax, router.channels.absmax, rtol=1e-6)


def test_planted_channels_are_found_where_they_are(tmp_path, place):
    config = llama_config(num_hidden_layers=4)
    tensors = llama_tensors(config)
    tensors["model.layers.2.input_layernorm.weight"][37] *= 60
    tensors["model.layers.1.post_attention_layernorm.weight"][5] *= 60
    write_folder(tmp_path / "planted", config, tensors)
    with captured(asked(place, str(tmp_path / "planted"))) as found:
        outliers = {
            (name, int(channel))
            for name in found.tensors
            for channel in np.flatnonzero(
                found.layers[name].channels.absmax > 10 * np.median(found.layers[name].channels.absmax)
            )
            if "attn_q" in name or "ffn_up" in name
        }
        assert outliers == {("blk.2.attn_q.weight", 37), ("blk.1.ffn_up.weight", 5)}
        beyond = found.layers["blk.2.attn_q.weight"].beyond
    assert beyond.argmax() == 37
    assert beyond[37] > 0.5


@pytest.mark.parametrize("name", ["llama", "mixture"])
def test_broken_off_anywhere_it_makes_the_same_bytes(place, tmp_path, monkeypatch, name):
    monkeypatch.setattr(capture_preparation, "FEWEST_SAMPLED", 40)
    monkeypatch.setattr(capture_preparation, "MOST_SAMPLED", 40)
    whole = tmp_path / "whole.activations"
    capture(asked(place, name, output=str(whole)))
    with read_activations(whole) as found:
        assert found.layers["blk.0.attn_q.weight"].sampled == 40
    for stop in (2, 4):
        output = tmp_path / f"stopped {stop}.activations"

        def listen(event, stop=stop):
            if event.stage == "activations" and event.done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(Stopped) as stopped:
            capture(asked(place, name, output=str(output)), listen)
        assert not output.exists()
        result = resume(stopped.value.job)
        assert result.resumed
        assert output.read_bytes() == whole.read_bytes()


def test_damaged_work_is_done_again(place, tmp_path):
    whole, output = tmp_path / "whole.activations", tmp_path / "damaged.activations"
    capture(asked(place, output=str(whole)))

    def listen(event):
        if event.stage == "activations" and event.done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as stopped:
        capture(asked(place, output=str(output)), listen)
    (folder,) = {Path(job.folder) for job in list_jobs() if job.id == stopped.value.job}
    part = folder / "work" / "part-0"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    resume(stopped.value.job)
    assert output.read_bytes() == whole.read_bytes()


def test_a_sample_s_percentiles_are_near_the_exact_ones(place, monkeypatch):
    exact = captured(asked(place, windows=40))
    monkeypatch.setattr(capture_preparation, "FEWEST_SAMPLED", 600)
    monkeypatch.setattr(capture_preparation, "MOST_SAMPLED", 600)
    monkeypatch.setattr(capture_preparation, "VERSION", 99)  # another place in the cache
    near = captured(asked(place, windows=40))
    with exact, near:
        a, b = (found.layers["blk.1.ffn_down.weight"] for found in (exact, near))
    assert (a.sampled, b.sampled) == (40 * LENGTH, 600)
    median = PERCENTS.index(50)
    assert 0 < np.abs(a.percentiles[median] - b.percentiles[median]).max() < 0.25 * a.channels.std.max()


def test_what_was_asked_before_lies_ready(place):
    first = capture(asked(place, prompt="What does this sentence do?"))
    again = capture(asked(place, prompt="What does this sentence do?"))
    assert first.output == again.output
    assert (bool(first.job), again.job) == (True, "")
    assert len(list_jobs()) == 1
    other = capture(asked(place, prompt="What does this sentence do?!"))
    assert other.output != first.output


def test_a_cache_of_another_s_is_used_all_the_same(place, monkeypatch):
    first = capture(asked(place))

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)
    again = capture(asked(place))
    assert (again.job, again.output) == ("", first.output)


def test_what_was_broken_off_for_the_cache_goes_on_when_it_is_asked_again(place):
    def listen(event):
        if event.stage == "activations" and event.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as stopped:
        capture(asked(place, seed=5), listen)
    result = capture(asked(place, seed=5))
    assert (result.job, result.resumed) == (stopped.value.job, True)
    assert len(list_jobs()) == 1


def test_a_prompt_is_one_window_of_its_own_tokens(place):
    for prompt in ("W", "What does this sentence do, and how?\n"):
        request = asked(place, prompt=prompt)
        with prepared_capture(request) as prepared:
            ids = [prepared.subject.tokenizer.bos, *prepared.subject.tokenizer.encode(prompt.strip())]
            assert prepared.tokens.tolist() == [ids]
        with captured(request) as found:
            assert found.ran.tokens == len(ids)
            assert found.ran.prompt == prompt
            rows = Hooked(place / "llama", torch.tensor([ids])).seen["model.layers.1.mlp.down_proj"]
            assert found.layers["blk.1.ffn_down.weight"].rows == len(ids)
            np.testing.assert_allclose(
                found.layers["blk.1.ffn_down.weight"].channels.max, rows.max(0), rtol=1e-4, atol=1e-6
            )


def test_windows_are_chosen_by_the_seed(place):
    tokens = [tokens_of(asked(place, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])
    with captured(asked(place, seed=1)) as found:
        assert found.ran.windows_there > WINDOWS
        assert "chosen with seed 1" in str(found.ran)
        assert found.ran.files == [str(place / "text.txt")]


def test_lines_of_json(place, tmp_path):
    text = (place / "text.txt").read_text()
    lines = [json.dumps({"id": 1, "content": part}) for part in (text[:900], text[900:])]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "b.txt").write_text(f"{text[:900]}\n{text[900:]}")
    both = [tokens_of(asked(place, texts=[str(tmp_path / name)])) for name in ("a.jsonl", "b.txt")]
    assert torch.equal(*both)


def test_refusals(place, tmp_path):
    there = tmp_path / "there.activations"
    there.write_text("mine")
    with pytest.raises(MemoryLimitError, match="This takes about"):
        capture(asked(place, memory_limit=LEAST_MEMORY))
    with pytest.raises(OutputError, match="exists already"):
        capture(asked(place, output=str(there)))
    with pytest.raises(OutputError, match="is no file of activations, and is not replaced"):
        capture(asked(place, output=str(there), overwrite=True))
    assert there.read_text() == "mine"
    with pytest.raises(OutputError, match=r"ends with \.activations"):
        capture(asked(place, output=str(tmp_path / "notes.txt"), overwrite=True))
    with pytest.raises(OutputError, match="no file can be written in /proc"):
        capture(asked(place, output="/proc/a.activations"))
    with pytest.raises(CalibrationError, match="The prompt is empty"):
        capture(asked(place, prompt=" \n "))
    (tmp_path / "bad.jsonl").write_text('{"words": "none"}\n')
    with pytest.raises(CalibrationError, match="line 1: is no JSON object"):
        capture(asked(place, texts=[str(tmp_path / "bad.jsonl")]))
    assert list_jobs() == []


def test_values_that_are_not_finite_are_told(tmp_path, place):
    config = llama_config()
    tensors = llama_tensors(config)
    tensors["model.layers.1.self_attn.v_proj.weight"][3] = 3e38
    write_folder(tmp_path / "large", config, tensors)
    with pytest.raises(CalibrationError, match=r"what reaches blk\.1\.attn_output\.weight is not finite"):
        capture(asked(place, str(tmp_path / "large")))
