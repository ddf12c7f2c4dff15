"""The command line as a user meets it: processes of their own, stdout, stderr, exit codes.

Most are forked from one that has imported everything; those with something to prove about a start are not.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import typer.main

from engine.api.formats import FORMATS
from engine.cli import app
from engine.methods import warm_up
from tests.engine.jobs.zygote import Order, Zygote
from tests.tiny import write_llama

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "resources" / "sample-model"


@pytest.fixture(scope="module", autouse=True)
def _started():
    """What the commands here compile otherwise, and say so; and where they come from."""
    warm_up(FORMATS)
    starting.append(Zygote(SAMPLE))
    yield
    starting.pop().close()


starting: list[Zygote] = []


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    config = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    }
    return write_llama(tmp_path_factory.mktemp("cli") / "model", config=config)


def bitwright(*arguments: object) -> subprocess.CompletedProcess:
    words = [str(argument) for argument in arguments]
    wide = "import os; os.environ['COLUMNS'] = '200'"
    order = Order(state=os.environ["XDG_STATE_HOME"], watched=[], arguments=words, before=wide)
    fate = starting[0].run(order)
    return subprocess.CompletedProcess(words, fate.code, fate.out, fate.noise)


def refused(*arguments: object) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, no traceback."""
    done = bitwright(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_inspect_json_has_the_promised_keys():
    done = bitwright("inspect", SAMPLE, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert (model["architecture"], model["parameters"]) == ("llama", 14_684_672)
    assert model["tied_embeddings"] is True
    by_name = {tensor["name"]: tensor for tensor in model["tensors"]}
    assert by_name["model.layers.3.mlp.down_proj.weight"] == {
        "name": "model.layers.3.mlp.down_proj.weight",
        "shape": [512, 1536],
        "dtype": "BF16",
        "role": "down",
        "block": 3,
        "bytes": 512 * 1536 * 2,
    }
    assert model["bytes"] == sum(tensor["bytes"] for tensor in model["tensors"])


def test_inspect_prints_a_table():
    done = bitwright("inspect", SAMPLE)
    assert "model.layers.0.self_attn.q_proj.weight" in done.stdout
    assert "14,684,672 parameters in 4 blocks" in done.stdout


def test_compiling_is_said_where_there_is_no_terminal(tmp_path):
    command = [sys.executable, "-m", "engine", "warm-up", "MXFP4"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    said = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        said.append(done.stderr)
    assert said == ["Compiling the encoder of MXFP4, once on this machine: some seconds …\n", ""]


def test_a_pre_tokenizer_can_be_named(model, tmp_path):
    done = bitwright("quantize", model, "--preset", "Q8_0", "--dry-run", "--json", "--pre-tokenizer", "qwen2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["output"]["options"] == {"pre_tokenizer": "qwen2"}
    said = refused("quantize", model, "--preset", "Q8_0", "--dry-run", "--pre-tokenizer", "qwen22")
    assert "no pre-tokenizer 'qwen22' (did you mean qwen2?); it knows " in said
    assert "llama-bpe" in said


def test_quantize_ends_with_one_json_object_and_is_listed(model, tmp_path):
    output = tmp_path / "o.gguf"
    done = bitwright("quantize", model, "--preset", "q4_k_m", "--out", output, "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"output", "bytes", "predicted_bytes", "bpw", "seconds", "peak_private_bytes"} <= result.keys()
    assert result["bytes"] == output.stat().st_size == result["predicted_bytes"]
    assert done.stderr == ""
    listed = json.loads(bitwright("jobs", "--json").stdout)
    assert [(job["kind"], job["state"], job["output"]) for job in listed] == [
        ("quantize", "done", str(output))
    ]
    assert "finished already" in refused("resume", listed[0]["id"])
    assert listed[0]["id"] in bitwright("jobs").stdout


def test_jobs_are_removed_one_by_one_and_all_that_are_over(model, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        bitwright("quantize", model, "--preset", "Q8_0", "--out", tmp_path / name)
    first, second = (job["id"] for job in json.loads(bitwright("jobs", "--json").stdout))
    assert f"Job {first} removed." in bitwright("jobs", "remove", first).stdout
    assert "is no job" in refused("jobs", "remove", first)
    assert second in bitwright("jobs").stdout
    assert "1 job removed." in bitwright("jobs", "clean").stdout
    assert "No jobs yet." in bitwright("jobs").stdout
    assert (tmp_path / "a.gguf").exists()
    assert "0 jobs removed." in bitwright("jobs", "clean", "--unfinished").stdout


def test_what_a_measurement_takes_is_said_before():
    asked = ("evaluate", SAMPLE, "--text", ROOT / "resources" / "text" / "evaluation.txt", "--dry-run")
    needed = json.loads(bitwright(*asked, "--json").stdout)["needs"]
    assert needed["memory"] > 300_000_000
    assert needed["seconds"] > 0
    assert "Time: about" in bitwright(*asked).stdout
    assert "No jobs yet." in bitwright("jobs").stdout


@pytest.mark.parametrize(
    ("limit", "said"), [("much", "8GB"), ("-1", "8GB"), ("1MB", "takes at least 105 MB")]
)
def test_a_memory_limit_that_is_none(model, tmp_path, limit, said):
    asked = ("quantize", model, "--preset", "Q8_0", "--out", tmp_path / "o.gguf", "--memory-limit", limit)
    assert said in refused(*asked)
    assert list(tmp_path.iterdir()) == []


def test_a_job_on_another_state_is_refused_and_started_again(model, tmp_path):
    """The source is touched between the interruption and the resuming."""
    source, output = tmp_path / "model", tmp_path / "o.gguf"
    shutil.copytree(model, source)
    child = "import os, engine.jobs.units as units; sync = units.os.fsync; left = [12]\n"
    child += "def fsync(file):\n left[0] -= 1\n left[0] or os.kill(os.getpid(), 9)\n sync(file)\n"
    child += "units.os.fsync = fsync\nimport sys; from engine.cli import main\n"
    child += "sys.argv[:] = ['bitwright', *sys.argv[1:]]; main()"
    asked = ["quantize", source, "--preset", "Q4_K_M", "--out", output]
    assert subprocess.run([sys.executable, "-c", child, *map(str, asked)], check=False).returncode == -9
    (job,) = json.loads(bitwright("jobs", "--json").stdout)
    assert job["state"] == "interrupted"
    weights = next(source.glob("*.safetensors"))
    os.utime(weights, (1, 1))
    said = refused("resume", job["id"])
    assert f"file {weights} has changed" in said
    assert f"bitwright resume {job['id']} --restart" in said
    again = bitwright("resume", job["id"], "--restart", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["bytes"] == output.stat().st_size
    states = [job["state"] for job in json.loads(bitwright("jobs", "--json").stdout)]
    assert states == ["replaced", "done"]
    whole = tmp_path / "whole.gguf"
    bitwright("quantize", source, "--preset", "Q4_K_M", "--out", whole)
    assert whole.read_bytes() == output.read_bytes()


def test_a_dry_run_under_too_low_a_limit_shows_what_it_takes(model, tmp_path):
    done = bitwright(
        "quantize", model, "--preset", "Q6_K", "--out", tmp_path / "o.gguf", "--dry-run",
        "--memory-limit", "340000000",
    )  # fmt: skip
    assert done.returncode == 2
    assert "limit 340 MB" in done.stdout
    assert "and the limit is 340 MB" in done.stderr
    needed = bitwright(
        "quantize", model, "--preset", "Q6_K", "--out", tmp_path / "o.gguf", "--dry-run", "--json",
        "--measure", ROOT / "resources" / "text" / "evaluation.txt", "--memory-limit", "340000000",
    )  # fmt: skip
    assert json.loads(needed.stdout)["needs"]["least_memory"] > 340_000_000
    assert "and the limit is 340 MB" in needed.stderr
    assert needed.returncode == 2


def test_dry_run_writes_nothing_and_predicts_the_size(model, tmp_path):
    output = tmp_path / "o.gguf"
    done = bitwright("quantize", model, "--preset", "Q6_K", "--out", output, "--dry-run", "--json")
    planned = json.loads(done.stdout)
    assert list(tmp_path.iterdir()) == []
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(planned["recipe"]))
    made = json.loads(bitwright("quantize", model, "--recipe", recipe, "--out", output, "--json").stdout)
    assert made["bytes"] == planned["predicted_bytes"]
    shown = bitwright("quantize", model, "--preset", "Q6_K", "--dry-run").stdout
    assert f"{planned['predicted_bytes']:,} bytes" in shown


def test_types_of_output_and_embedding(model):
    done = bitwright(
        "quantize", model, "--preset", "Q4_0", "--dry-run", "--json",
        "--output-tensor-type", "Q8_0", "--token-embedding-type", "F16",
    )  # fmt: skip
    formats = {tensor["name"]: tensor["format"] for tensor in json.loads(done.stdout)["tensors"]}
    assert (formats["output.weight"], formats["token_embd.weight"]) == ("Q8_0", "F16")


def test_numbers_that_cannot_be_are_said_in_our_words(model):
    asked = ("quantize", model, "--preset", "Q8_0", "--measure", "t.txt", "--dry-run")
    assert "error: --windows must be at least 1." in refused(*asked, "--windows", 0)
    assert "error: --threads must be a whole number." in refused(*asked, "--threads", "x")


def test_names_in_the_table_are_patterns(model):
    shown = bitwright("quantize", model, "--preset", "Q4_0", "--dry-run").stdout
    (name,) = [line.split()[0] for line in shown.splitlines() if "layers.1.mlp.down_proj" in line]
    typed = bitwright("quantize", model, "--preset", "Q4_0", "--dry-run", "--tensor-type", f"{name}$=F16")
    assert "F16" in next(line for line in typed.stdout.splitlines() if name in line)
    assert "matches no tensor" not in typed.stderr
    idle = bitwright("quantize", model, "--preset", "Q4_0", "--dry-run", "--tensor-type", "nothinghere=F16")
    assert "warning: --tensor-type 'nothinghere' matches no tensor of this model" in idle.stderr


def test_rule_that_matches_nothing_is_said(model, tmp_path):
    recipe = tmp_path / "r.json"
    rules = [{"match": "ffn_dwon", "format": "Q6_K"}]
    recipe.write_text(json.dumps({"rules": rules, "default": {"format": "Q4_K"}}))
    done = bitwright("quantize", model, "--recipe", recipe, "--dry-run")
    assert "rule 1 ('ffn_dwon') matches no tensor" in done.stderr
    assert done.returncode == 0


def test_refusals(model, tmp_path):
    out = tmp_path / "o.gguf"
    (tmp_path / "empty").mkdir()
    good = tmp_path / "good.json"
    good.write_text('{"default": {"format": "Q4_K"}}')
    typo = tmp_path / "typo.json"
    typo.write_text('{"default": {"fromat": "Q4_K"}}')
    assert "--preset or --recipe" in refused("quantize", model, "--out", out)
    both = refused("quantize", model, "--recipe", typo, "--preset", "Q4_0", "--out", out)
    assert "not both" in both
    assert "--imatrix" not in both
    assert "importance matrix" in refused(
        "quantize", model, "--preset", "Q4_0", "--imatrix", tmp_path / "absent", "--out", out
    )
    assert "--output-tensor-type: unknown format" in refused(
        "quantize", model, "--preset", "Q4_0", "--output-tensor-type", "Q9", "--out", out
    )
    assert "--out" in refused("quantize", model, "--preset", "Q4_0")
    assert "Unknown preset 'Q4'" in refused("quantize", model, "--preset", "Q4", "--out", out)
    assert "is the recipe" in refused("quantize", model, "--recipe", good, "--out", good, "--overwrite")
    assert "default: unknown key 'fromat'" in refused("quantize", model, "--recipe", typo, "--out", out)
    assert str(tmp_path / "empty") in refused("inspect", tmp_path / "empty")
    assert str(tmp_path / "absent") in refused("inspect", tmp_path / "absent")
    assert "is no job" in refused("resume", "nonsense")
    assert "does not exist" in refused(
        "quantize", model, "--preset", "Q4_0", "--out", tmp_path / "a" / "b.gguf"
    )
    assert "absent.txt" in refused("evaluate", model, "--text", tmp_path / "absent.txt")
    assert not out.exists()


def test_usage_errors_are_one_sentence():
    assert "Missing argument" in refused("inspect")
    assert "--prest" in refused("quantize", "x", "--prest", "Q4_0")
    assert "--threads" in refused("quantize", "x", "--threads", 0)
    assert "gptq" in refused("evaluate", SAMPLE, "--text", ROOT / "README.md", "--protocol", "x")
    assert "nonsense" in refused("nonsense")


def damaged(folder: Path) -> dict[Path, str]:
    """Bad models, each with a word that its sentence must have."""
    made = {}

    def add(name: str, word: str, change: Callable[[Path], object]) -> None:
        made[write_llama(folder / name)] = word
        change(folder / name)

    def weights(path: Path) -> Path:
        return path / "model.safetensors"

    add("no config", "config.json", lambda path: (path / "config.json").unlink())
    add("truncated", "model.safetensors", lambda path: os.truncate(weights(path), 50_000))
    add(
        "hostile",
        "model.safetensors",
        lambda path: weights(path).write_bytes((1 << 60).to_bytes(8, "little")),
    )
    add("no tokenizer", "tokenizer", lambda path: (path / "tokenizer.json").unlink())
    add("broken tokenizer", "tokenizer.json", lambda path: (path / "tokenizer.json").write_text("{"))
    add("broken config", "config.json", lambda path: (path / "config.json").write_text("{"))
    add("nothing", "nothing", lambda path: [file.unlink() for file in path.iterdir()])
    add("no heads", "head", lambda path: edit(path, num_attention_heads=0))
    add("words", "config.json", lambda path: edit(path, hidden_size="many"))
    add("martian", "martian", lambda path: edit(path, model_type="martian"))
    return made


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_damaged_models(tmp_path):
    """Each ends in one sentence, on export and on measuring; nothing is written."""
    for model, word in damaged(tmp_path / "models").items():
        out = tmp_path / "o.gguf"
        assert word in refused("quantize", model, "--preset", "Q4_0", "--out", out), model.name
        assert word in refused("evaluate", model, "--text", ROOT / "README.md"), model.name
        assert list(tmp_path.glob("o.gguf*")) == []


def test_file_size_limit_of_the_shell(model, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "engine.cli", "quantize", str(model), "--preset", "Q8_0"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "o.gguf")],
        cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "limit on file sizes" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.glob("o.gguf*")) == []


def test_brackets_and_escapes_in_names_are_shown_as_they_are(model, tmp_path):
    odd = tmp_path / "mod[red]el"
    odd.symlink_to(model)
    assert "mod[red]el" in bitwright("inspect", odd).stdout
    recipe = tmp_path / "r.json"
    recipe.write_text(
        json.dumps({"rules": [{"match": "zzz[qk][/red]", "format": "Q6_K"}], "default": {"format": "Q4_K"}})
    )
    done = bitwright("quantize", odd, "--recipe", recipe, "--out", tmp_path / "o[bold].gguf")
    assert "rule 1 ('zzz[qk][/red]') matches no tensor" in done.stderr
    assert done.returncode == 0
    assert "o[bold].gguf" in bitwright("jobs").stdout
    assert "\x1b" not in refused("inspect", "\x1b[31mred")


def test_terminated_and_resumed(model, tmp_path):
    """SIGTERM ends the job in order; `resume` finishes it."""
    output = tmp_path / "o.gguf"
    code = (
        "import engine.quantize, engine.writing, os, signal, sys\n"
        "real, calls = engine.writing._encode, [0]\n"
        "def slow(*a):\n"
        "    calls[0] += 1\n"
        "    if calls[0] == 6: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(*a)\n"
        "engine.writing._encode = slow\n"
        "from engine.cli import main\n"
        "main()\n"
    )
    arguments = ["quantize", str(model), "--preset", "Q4_0", "--out", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    said = re.search(r"bitwright resume (\S+)", done.stderr)
    assert said
    assert not output.exists()
    resumed = bitwright("resume", said[1], "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["bytes"] == output.stat().st_size


def open_names(pid: int) -> set[str]:
    """The names of the files that a process has open; it may close some while they are listed."""
    names = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(link.readlink().name)
    return names


def test_ctrl_c_while_evaluating_is_quiet(model, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("The harbour was quiet that morning. " * 30_000)
    command = [sys.executable, "-m", "engine.cli", "evaluate", str(model), "--text", str(text)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 120
        while "model.safetensors" not in open_names(running.pid):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    # Interrupted within an import, Python ends by the signal itself; a shell reports both as 130.
    assert running.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said


def commands() -> dict:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_of_each_command_has_an_example(name):
    done = bitwright(name, "--help")
    assert done.returncode == 0
    assert f"bitwright {name}" in done.stdout.split("Example:")[1]


def test_readme_documents_every_command_and_option():
    lines = (
        (ROOT / "README.md").read_text().split("## Commands")[1].split("##")[0].replace("\n", " ").split("- ")
    )
    for name, command in commands().items():
        described = next((line for line in lines if line.startswith(f"`{name}`")), "")
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}`" in described, f"{name} {option}"
        assert described, name


def test_help_names_the_commands_and_the_window():
    done = bitwright("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "inspect" in done.stdout
    assert "bitwright [MODEL]" in done.stdout


def handed_over(prelude: str, *arguments: object) -> subprocess.CompletedProcess:
    """What the command line does with these words, up to the moment it would become the window."""
    code = (
        "import os, sys\n"
        "def execv(path, words):\n"
        "    code, *rest = words[words.index('-c') + 1:]\n"
        "    print(\"run_module('app'\" in code, rest)\n"
        "    sys.exit(0)\n"
        f"os.execv = execv\n{prelude}\n"
        "from engine.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_window_opens_on_nothing_or_on_a_model():
    assert handed_over("").stdout == "True []\n"
    assert handed_over("", SAMPLE).stdout == f"True ['{SAMPLE}']\n"
    assert handed_over("", "resources/sample-model").stdout == "True ['resources/sample-model']\n"


def test_the_window_is_refused_in_one_sentence():
    neither = refused("nonsense")
    assert "neither a command nor a model's folder or file" in neither
    assert "one model" in refused(SAMPLE, SAMPLE)
    done = handed_over("sys.modules['PySide6'] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PySide6" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_quantize_and_measure(model, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("The harbour was quiet that morning. " * 300)
    arguments = ["quantize", model, "--preset", "Q4_0", "--out", tmp_path / "o.gguf", "--overwrite"]
    done = bitwright(*arguments, "--measure", text, "--windows", 1, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["report"]["windows"] == 1
    assert result["report"]["kl_mean"] > 0
    assert result["source_bpw"] == 32
    assert "KL divergence" in bitwright(*arguments, "--measure", text, "--windows", 1).stdout
    assert "--measure" in refused(*arguments, "--windows", 1)
    assert "absent.txt" in refused(*arguments, "--measure", tmp_path / "absent.txt", "--dry-run")
