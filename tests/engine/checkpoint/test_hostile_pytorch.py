"""pytorch_model.bin made to do harm: nothing is called, nothing of ours is changed, nothing takes forever."""

import io
import struct

import pytest
import torch

from engine.checkpoint import open_checkpoint
from engine.checkpoint.pickled import PickleError, load
from tests.fuzz.mutations import archive
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check
from tests.fuzz.seeds import FLOATS, SEEDS, matrices

test_damage = no_damage("pytorch", 500)
test_bytes = no_bytes("pytorch")

GOOD = matrices({"model.embed_tokens.weight": ("FloatStorage", "0", (4, 2))})


def word(letters: str) -> bytes:
    return b"X" + struct.pack("<I", len(letters)) + letters.encode()


def read(pickled: bytes) -> list[str]:
    return check(READERS["pytorch"], archive({"m/data.pkl": pickled, "m/data/0": FLOATS}))


def test_a_type_is_not_changed_for_the_next_file():
    """BUILD changed the object that stands for torch.FloatStorage, and with it every file that came after."""
    build = b"\x80\x02ctorch\nFloatStorage\n}" + word("name") + word("F16") + b"sb0"
    (said,) = read(build + GOOD[2:])
    assert "it changes what is no dictionary" in said


def test_attributes_of_a_dictionary_mean_nothing():
    """`items` of an OrderedDict became a number, and calling it an error of ours."""
    assert read(GOOD[:-1] + b"}" + word("items") + b"K\x01sb.") == []


@pytest.mark.parametrize("key", [b")" + b"2\x86" * 60, b"]", b"}"], ids=["tuples of tuples", "list", "dict"])
def test_keys_are_plain(key):
    """A tuple of twice a tuple of twice a tuple … takes 2^60 steps to hash, which nothing can interrupt."""
    (said,) = read(b"\x80\x02}" + key + b"K\x01s.")
    assert "damaged description" in said


def test_keys_that_are_tuples_by_the_memo():
    doubled = b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
    (said,) = read(b"\x80\x02})" + doubled + b"K\x01s.")
    assert "a key in it is neither text nor number" in said


def test_the_name_of_a_record_that_is_a_thing():
    """Shown in a sentence, tuples of tuples would take as long."""
    storage = b"(" + word("storage") + b"ctorch\nFloatStorage\n]" + word("cpu") + b"K\x08tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\x04\x85K\x01\x85\x89}tR"
    (said,) = read(b"\x80\x02}" + word("w") + tensor + b"s.")
    assert "a tensor in it has no storage" in said


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02)" + b"\x85" * 50_000 + b".",
        b"\x80\x02N" + b"Q" * 50_000 + b".",
        b"\x80\x02]" + b"]a" * 50_000 + b".",
        b"\x80\x02]" + b"\x94" * 50_000 + b".",
        b"\x80\x02" + b"}" * 50_000 + b".",
        b"\x80\x02" + b"(" * 50_000 + b".",
    ],
    ids=["tuples", "references", "lists", "notes", "stack", "marks"],
)
def test_memory_for_pickles_of_small_instructions(pickled):
    assert read(pickled)


def test_memory_for_many_records():
    records = {"m/data.pkl": GOOD, "m/data/0": FLOATS} | {f"{number:x}": b"" for number in range(3_000)}
    assert check(READERS["pytorch"], archive(records)) == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_writes_is_read_in_every_protocol(tmp_path, protocol):
    tensors = {f"w{number}": torch.full((2, 3), float(number)) for number in range(3000)}
    content = {"state_dict": tensors, "lr": 0.1, "step": 1 << 40, "flags": [True, None, -1, "é"], "none": ()}
    torch.save(content, tmp_path / "model.bin", pickle_protocol=protocol)
    with open_checkpoint(tmp_path / "model.bin") as checkpoint:
        assert len(checkpoint.tensors) == 3000
        assert (checkpoint.read("w2999") == 2999).all()


def test_a_module_s_state_dict_is_read(tmp_path):
    """It carries attributes, the versions of its modules."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)).half()
    torch.save(module.state_dict(), tmp_path / "model.bin")
    with open_checkpoint(tmp_path / "model.bin") as checkpoint:
        assert list(checkpoint.tensors) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_every_cut_of_a_pickle_is_refused():
    for size in range(len(GOOD)):
        with pytest.raises(PickleError):
            load(GOOD[:size], {})


def test_the_seed_is_what_torch_reads():
    """Else the property tests would be about another format."""
    content = SEEDS["pytorch"]()["two matrices"]
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    assert loaded["model.embed_tokens.weight"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
