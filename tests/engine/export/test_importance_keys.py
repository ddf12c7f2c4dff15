"""The keys by which llama-quantize tells of the importance matrix that it used, and the size with them."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType

from engine import imatrix
from engine.api.importance import KEYS, importance_facts
from engine.api.jobs import QuantizeRequest
from engine.api.plan import Planner
from engine.api.recipe import Choice, GgufOptions, Output, Recipe, Rule
from engine.calibration.importance import Entry, Importance
from engine.calibration.importance_files import write_importance
from engine.checkpoint import open_checkpoint
from engine.preparation import prepare
from engine.quantize import quantize
from engine.summary import export_summary
from tests.tiny import write_llama

FILE, DATASET, ENTRIES, CHUNKS = KEYS
TEXTS = {FILE: "of my model.gguf", DATASET: "calibration.txt"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("keys") / "model")


@pytest.fixture(scope="module")
def matrix(model: Path) -> Path:
    """Of the matrices of block 0, and of one that the model has not."""
    with open_checkpoint(model) as checkpoint:
        columns = {t.canonical: t.shape[-1] for t in checkpoint.tensors.values() if len(t.shape) > 1}
    names = [name for name in columns if name and name.startswith("blk.0.")]
    entries = {name: entry(columns[name]) for name in names} | {"blk.99.attn_q.weight": entry(8)}
    path = model.parent / "secret folder" / "of my model.gguf"
    path.parent.mkdir()
    texts = ["/home/me/calibration.txt", "C:\\texts\\other.txt"]
    write_importance(path, Importance(entries, texts, 34, 512), overwrite=False)
    return path


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def entry(columns: int) -> Entry:
    return Entry(np.arange(1, columns + 1, dtype=np.float32)[None], np.array([512]))


def recipe(matrix: Path | None, format_name: str = "Q4_0", **changes: object) -> Recipe:
    imatrix = None if matrix is None else str(matrix)
    return Recipe(default=Choice(format=format_name), imatrix=imatrix, **changes)


def run(model: Path, output: Path, wanted: Recipe) -> dict[str, tuple[GGUFValueType, object]]:
    """The keys that a file gets, once all that predicts its size agrees with what it has."""
    with open_checkpoint(model) as checkpoint:
        export = export_summary(checkpoint)
        assert prepare(checkpoint, wanted).size == window_s_size(export, wanted, model)
    result = quantize(QuantizeRequest(model=str(model), output=str(output), recipe=wanted))
    assert output.stat().st_size == result.bytes == window_s_size(export, wanted, model)
    fields = gguf.GGUFReader(output).fields
    return {key: (fields[key].types[0], fields[key].contents()) for key in KEYS if key in fields}


def window_s_size(export, wanted: Recipe, model: Path) -> int:
    """As the window has it: from summaries alone."""
    planner = Planner(export.tensors)
    if wanted.imatrix:
        files = [Path(wanted.imatrix)]
        planner.importance = imatrix.summary(imatrix.read_all(files), files, model).facts(wanted.imatrix)
    return export.file_bytes(planner.plan(wanted), wanted.output.options)


def test_they_are_llama_quantize_s_in_name_and_type_without_folders(model, matrix, tmp_path):
    found = run(model, tmp_path / "o.gguf", recipe(matrix))
    with open_checkpoint(model) as checkpoint:
        own = sum(tensor.block == 0 and len(tensor.shape) > 1 for tensor in checkpoint.tensors.values())
    assert found == {
        FILE: (GGUFValueType.STRING, "of my model.gguf"),
        DATASET: (GGUFValueType.STRING, "calibration.txt"),
        ENTRIES: (GGUFValueType.UINT32, own + 1),
        CHUNKS: (GGUFValueType.UINT32, 34),
    }
    content = (tmp_path / "o.gguf").read_bytes()
    assert b"secret folder" not in content
    assert b"/home/me" not in content


@pytest.mark.parametrize(
    "wanted",
    [
        {"format_name": "F16"},
        {"rules": [Rule(match="blk", method="rtn", format="Q4_0")]},
        {"rules": [Rule(match=r"blk\.0", format="BF16")]},
    ],
)
def test_a_matrix_that_weighs_nothing_is_not_told_of(model, matrix, tmp_path, wanted):
    wanted = recipe(matrix, **wanted)
    assert run(model, tmp_path / "o.gguf", wanted) == {}
    said = "the importance matrix is not used: no tensor gets a format whose codes are searched for"
    with open_checkpoint(model) as checkpoint:
        assert (said in prepare(checkpoint, wanted).plan.warnings) is (wanted.default.format == "F16")


def test_from_a_file_that_has_them(model, matrix, tmp_path):
    """Kept as every key is, unless another matrix is used: then none of the old ones stays."""
    first = run(model, tmp_path / "a.gguf", recipe(matrix))
    source = tmp_path / "a.gguf"
    assert run(source, tmp_path / "kept.gguf", recipe(None, "Q8_0")) == first
    write_importance(tmp_path / "i.gguf", Importance({"blk.0.attn_q.weight": entry(64)}), overwrite=False)
    found = run(source, tmp_path / "new.gguf", recipe(tmp_path / "i.gguf", "Q8_0"))
    assert found == {FILE: (GGUFValueType.STRING, "i.gguf"), ENTRIES: (GGUFValueType.UINT32, 1)}
    assert run(source, tmp_path / "idle.gguf", recipe(tmp_path / "i.gguf", "F16")) == first


def test_they_can_be_edited(model, matrix, tmp_path):
    edits = {DATASET: "", CHUNKS: "35", FILE: "m"}
    options = GgufOptions(metadata=edits)
    wanted = recipe(matrix, output=Output(options=options))
    found = run(model, tmp_path / "o.gguf", wanted)
    assert found.pop(ENTRIES)[0] == GGUFValueType.UINT32
    assert found == {FILE: (GGUFValueType.STRING, "m"), CHUNKS: (GGUFValueType.UINT32, 35)}
    with open_checkpoint(model) as checkpoint:
        assert not any("to leave out" in said for said in prepare(checkpoint, wanted).plan.warnings)


@pytest.mark.parametrize(
    ("path", "datasets", "windows", "told"),
    [
        ("i.dat", [""], 0, {FILE: "i.dat", ENTRIES: 2}),
        ("C:\\x\\i.dat", ["a/b/"], 1 << 40, {FILE: "i.dat", ENTRIES: 2, CHUNKS: (1 << 32) - 1}),
        ("/x/\udce9.gguf", [], 3, {FILE: "\N{REPLACEMENT CHARACTER}.gguf", ENTRIES: 2, CHUNKS: 3}),
    ],
)
def test_what_is_not_known_is_left_out(path, datasets, windows, told):
    found = importance_facts(path, ["a", "b"], datasets, 2, windows).metadata
    assert {key: value.value for key, value in found.items()} == told
