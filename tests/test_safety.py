"""What we open stays data, and we stay on this machine: no network, no code of a checkpoint's."""

import ast
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engine.api import events, messages, requests
from engine.api.errors import CheckpointError
from engine.api.jobs import QuantizeRequest
from engine.api.launch import module_command
from engine.api.recipe import Choice, Recipe
from engine.checkpoint import errors, open_checkpoint
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.tiny import write_llama

ROOT = Path(__file__).parents[1]

GUARD = """
import os, sys

def guard(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.")) and event != "socket.__new__":
        with open(os.environ["REACHED"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")
        raise ConnectionRefusedError("a test without a network")

sys.addaudithook(guard)
"""
"""Run by Python at its start: says which address was asked for, and refuses it."""


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes have a state folder of their own, and none may ask for any address."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    reached = tmp_path / "reached"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "guard"))
    monkeypatch.setenv("REACHED", str(reached))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # they would hide an attempt
        monkeypatch.delenv(name, raising=False)
    yield
    assert not reached.exists(), reached.read_text()
    assert not (tmp_path / "hub").exists(), "something was put where downloads go"


def commands(cwd: Path, *lines: list[object]) -> list[subprocess.CompletedProcess]:
    """Each command as the window would start it, all at once: most of the time they load libraries."""
    running = [
        subprocess.Popen(
            module_command("engine", *map(str, line)),
            cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for line in lines
    ]  # fmt: skip
    done = []
    for process in running:
        out, error = process.communicate(timeout=300)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, error))
    return done


# -------------------------------------------------------------------------------------- the network


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open, of whatever family."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_an_engine_never_has_a_socket(tmp_path, monkeypatch):
    """Neither while it inspects nor while it quantizes: it listens to the pipe of its window alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    recipe = Recipe(default=Choice(format="Q8_0", method="rtn"))
    job = QuantizeRequest(model=str(SAMPLE_MODEL), output=str(tmp_path / "o.gguf"), recipe=recipe)
    pipe = subprocess.PIPE
    command = module_command("engine", "serve")
    engine = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    assert engine.stdin is not None
    assert engine.stdout is not None
    seen: set[str] = set()
    looked = 0
    ended = threading.Event()

    def look() -> None:
        nonlocal looked
        while not ended.wait(0.02):
            seen.update(sockets(engine.pid))
            looked += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        engine.stdin.write(messages.write(requests.OpenModel(id=1, model=str(SAMPLE_MODEL))))
        engine.stdin.flush()
        wait_for(engine.stdout, events.ExportPage)
        engine.stdin.write(messages.write(requests.StartQuantize(quantize=job)))
        engine.stdin.flush()
        wait_for(engine.stdout, events.Done)
    finally:
        ended.set()
        watcher.join()
        engine.communicate(timeout=60)
    assert (tmp_path / "o.gguf").exists()
    assert looked > 10
    assert seen == set()


def wait_for(lines: Iterator[bytes], kind: type) -> None:
    for line in lines:
        event = events.read_event(line)
        assert not isinstance(event, events.Failed), event
        if isinstance(event, kind):
            return
    pytest.fail(f"the engine ended without {kind.__name__}")


@pytest.mark.usefixtures("guarded")
def test_the_guard_sees_who_asks_for_an_address(tmp_path):
    asking = [sys.executable, "-c", "import socket; socket.create_connection(('localhost', 9))"]
    done = subprocess.run(asking, capture_output=True, text=True, check=False)
    assert "a test without a network" in done.stderr
    assert "socket.getaddrinfo" in (tmp_path / "reached").read_text()
    (tmp_path / "reached").unlink()


@pytest.mark.usefixtures("guarded")
def test_nothing_is_downloaded(tmp_path):
    """Quantizing and measuring, and a name that a hub would know."""
    out = tmp_path / "o.gguf"
    measured = ["--measure", EVALUATION_TEXT, "--windows", 1]
    made, asked, unknown = commands(
        tmp_path,
        ["quantize", SAMPLE_MODEL, "--preset", "Q8_0", "--out", out, *measured, "--json"],
        ["inspect", "HuggingFaceTB/SmolLM2-135M"],
        ["evaluate", "org/model", "--text", EVALUATION_TEXT],
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["report"]["kl_mean"] < 0.01
    for refused in (asked, unknown):
        assert refused.returncode == 2
        assert "does not exist; name a model folder or file on this machine" in refused.stderr


# ------------------------------------------------------------------------------ a checkpoint's code


MODULES = ("modeling_evil", "configuration_evil", "tokenization_evil", "torch", "transformers", "regex")
CLASSES = {
    "AutoConfig": "configuration_evil.Config",
    "AutoModelForCausalLM": "modeling_evil.Model",
    "AutoTokenizer": ["tokenization_evil.Tokenizer", None],
}


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def with_code(folder: Path, mark: Path, model_type: str) -> Path:
    """A model with code beside it that leaves `mark` behind when it is run, in every way that is known."""
    write_llama(folder)
    leave = f"open({str(mark)!r}, 'w').close()\n"
    classes = "".join(f"class {name}: pass\n" for name in ("Config", "Model", "Tokenizer"))
    for module in MODULES:
        (folder / f"{module}.py").write_text(leave + classes)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        changes = {"auto_map": CLASSES, "trust_remote_code": True, "_name_or_path": "org/model"}
        if name == "config.json":
            changes["model_type"] = model_type
        (folder / name).write_text(json.dumps(content | changes))
    for name in ("training_args.bin", "scheduler.pt", "optimizer.bin", "rng_state.pth"):
        torch.save(Call(os.system, f"touch {mark}"), folder / name)
    template = "{{ cycler.__init__.__globals__.os.popen('touch " + str(mark) + "').read() }}"
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.usefixtures("guarded")
def test_code_beside_a_model_is_not_run(tmp_path):
    """Nor if the user stands in its folder. A model that is nothing without its code is refused."""
    mark = tmp_path / "executed"
    folder = with_code(tmp_path / "known", mark, "llama")
    foreign = with_code(tmp_path / "foreign", mark, "evil")
    subprocess.run([sys.executable, "-c", "import regex"], cwd=folder, check=True)
    mark.unlink()  # so the trap works
    out = tmp_path / "o.gguf"
    measuring = ["--text", EVALUATION_TEXT, "--windows", 1]
    *good, refused = commands(
        folder,
        ["inspect", "."],
        ["quantize", ".", "--preset", "Q4_0", "--out", out],
        ["evaluate", ".", *measuring],
        ["evaluate", foreign, *measuring],
    )
    for done in good:
        assert done.returncode == 0, done.stderr
    assert refused.returncode == 2
    assert "transformers does not know the architecture 'evil'" in refused.stderr
    assert out.exists()
    assert not mark.exists()


def bare(content: object) -> bytes:
    return pickle.dumps(content, 2)


def zipped(content: object, tmp_path: Path) -> bytes:
    torch.save(content, tmp_path / "made")
    return (tmp_path / "made").read_bytes()


def legacy(content: object, tmp_path: Path) -> bytes:
    """As PyTorch wrote before version 1.6: pickles one behind the other."""
    torch.save(content, tmp_path / "made", _use_new_zipfile_serialization=False)
    return (tmp_path / "made").read_bytes()


@pytest.mark.parametrize("layout", ["zip", "legacy", "bare pickle", "pickle named safetensors"])
def test_a_pickle_that_calls_something_is_refused(tmp_path, layout):
    mark = tmp_path / "executed"
    content = {"w": torch.ones(2, 2), "evil": Call(os.system, f"touch {mark}")}
    name = "pytorch_model.bin"
    if layout == "zip":
        data, kind = zipped(content, tmp_path), errors.UnsafePickleError
    elif layout == "legacy":
        data, kind = legacy(content, tmp_path), errors.NotAModelError
    else:
        data, kind = bare(Call(os.system, f"touch {mark}")), errors.NotAModelError
    if layout == "pickle named safetensors":
        name, kind = "model.safetensors", CheckpointError
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(data)
    for path in (folder, folder / name):
        with pytest.raises(kind):
            open_checkpoint(path)
    assert not mark.exists()


# ------------------------------------------------------------------------------------- our own code


EXEMPT = {"app/plotting.py": ["compile", "exec"]}
"""Runs the plotting library, as installed, a piece at a time."""

RUNNING = {"eval", "exec", "compile", "__import__"}
LOADERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
NETWORK = {"socket", "socketserver", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "asyncio", "requests",
           "httpx", "aiohttp", "huggingface_hub", "webbrowser"}  # fmt: skip
OPENING = {"PySide6.QtNetwork", "PySide6.QtWebSockets", "PySide6.QtHttpServer"}


def suspicious(source: str) -> list[str]:
    """What in a module could run foreign code, load it, or reach the network."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in LOADERS | NETWORK]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names} | {node.module or ""}
            found += [name for name in names if name in OPENING]
            found += [name for name in {node.module or ""} if name.split(".")[0] in LOADERS | NETWORK]
        elif isinstance(node, ast.Call):
            found += suspicious_call(node)
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.append("trust_remote_code by its name")
    return found


def suspicious_call(node: ast.Call) -> list[str]:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    function = ast.unparse(node.func)
    found = []
    if isinstance(node.func, ast.Name) and node.func.id in RUNNING:
        found.append(function)
    if function in ("torch.load", "torch.hub.load", "torch.jit.load") and given.get("weights_only") != "True":
        found.append(function)
    if function in ("os.system", "os.popen", "runpy.run_path") or given.get("shell", "False") != "False":
        found.append(function)
    return found + [
        f"{name}={given[name]}"
        for name in ("trust_remote_code", "allow_pickle")
        if given.get(name, "False") != "False"
    ]


def test_our_code_runs_and_loads_no_foreign_code():
    faults = {}
    for part in ("app", "engine", "kernels", "resources"):
        for file in sorted((ROOT / part).rglob("*.py")):
            if found := suspicious(file.read_text()):
                faults[str(file.relative_to(ROOT))] = found
    assert faults == EXEMPT


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=trust)",
        "AutoModel.from_pretrained(path, **{'trust_remote_code': True})",
        "yaml.load(text)\nimport yaml",
        "import urllib.request",
        "from PySide6.QtNetwork import QTcpServer",
        "from PySide6 import QtNetwork",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(line):
    assert suspicious(line)


@pytest.mark.parametrize(
    "line",
    [
        "re.compile('a')",
        "dialog.exec()",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=False)",
    ],
)
def test_the_search_lets_the_harmless_pass(line):
    assert not suspicious(line)
