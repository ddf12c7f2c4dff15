"""An index or a config made to do harm: it leads nowhere else, and says nothing that cannot be shown."""

import json

import pytest

from engine.checkpoint import errors, open_checkpoint
from tests.fuzz.properties import no_bytes, no_damage
from tests.fuzz.readers import READERS, check
from tests.fuzz.seeds import CONFIG, SHARDS, as_json

test_index_damage = no_damage("index", 500)
test_index_bytes = no_bytes("index")
test_config_damage = no_damage("config", 200)
test_config_bytes = no_bytes("config", 40)


@pytest.mark.parametrize(
    "shard",
    [
        *("../outside.safetensors", "/etc/passwd", "..", ".", "", "model/../../outside.safetensors", "a\\b"),
        *("a\0b", "a\nb", "\u202ea", "\ud800", "\udcff", "x" * 3000, None, True, 7, [], {"a": 1}),
    ],
)
def test_shards_are_plain_names_in_the_folder(shard):
    """`check` fails if anything outside of the folder is opened."""
    index = json.dumps({"weight_map": {"model.embed_tokens.weight": SHARDS[0], "v": shard}}).encode()
    (said,) = check(READERS["index"], index)
    assert "not a plain file name in its own folder" in said


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "x" * 3000])
def test_names_in_an_index_that_cannot_be_shown(name):
    (said,) = check(READERS["index"], json.dumps({"weight_map": {name: SHARDS[0]}}).encode())
    assert "which does not hold it" in said


def test_memory_for_an_index_of_many_names():
    places = {f"{number:x}": SHARDS[0] for number in range(10_000)}
    check(READERS["index"], as_json({"weight_map": places}))
    check(READERS["index"], as_json({"weight_map": {name: name for name in places}}))


@pytest.mark.parametrize("method", ["hqq", "compressed-tensors", "gptq", "a\nb", "\ud800", ["x"], "x" * 1000])
@pytest.mark.parametrize("bits", [10**400, -3, 0, True, float("inf"), float("nan"), "4", [4]])
def test_a_config_about_bits_that_are_none(method, bits):
    """A number of 400 digits is larger than any float."""
    group = {"weights": {"num_bits": bits, "group_size": bits}, "format": method}
    settings = {
        "quant_method": method,
        "bits": bits,
        "group_size": bits,
        "weight_block_size": [bits, bits],
        "config_groups": {"a": group},
        "quant_config": {"weight_quant_params": {"nbits": bits, "group_size": bits}},
    }
    check(READERS["config"], json.dumps(CONFIG | {"quantization_config": settings}).encode())


@pytest.mark.parametrize("kind", ["\ud800", "a\nb", "x" * 1000, 10**400, None])
def test_a_model_type_that_is_no_word_counts_as_none(tmp_path, kind):
    config = json.dumps(CONFIG | {"model_type": kind, "num_hidden_layers": kind}).encode()
    check(READERS["config"], config)


def test_links_are_followed_as_those_of_a_cache_are(tmp_path):
    """Hugging Face's cache has links into `blobs`, people link large files; the names stay in the folder."""
    folder = tmp_path / "snapshots" / "0"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for name, content in {
        "config.json": as_json(CONFIG),
        "model.safetensors": b"\x02" + bytes(7) + b"{}",
    }.items():
        (tmp_path / "blobs" / name.upper()).write_bytes(content)
        (folder / name).symlink_to(f"../../blobs/{name.upper()}")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.architecture == "llama"


def test_a_link_in_a_circle_and_one_to_a_device(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(errors.UnreadableError, match="symbolic links"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(errors.UnreadableError, match="not a plain file"):
        open_checkpoint(tmp_path)
