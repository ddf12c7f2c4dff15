"""The file of activations: what was written is read, what is damaged is refused with one sentence."""

import json

import numpy as np
import pytest

from engine.activations import About, LayerAbout, LayerActivations, layer_arrays, read_activations
from engine.api.activations import Peak, Ran
from engine.api.errors import UserError
from engine.api.statistics import PERCENTS
from engine.calibration.array_files import packed, write_arrays
from kernels.statistics import Channels, Distribution

RAN = Ran(model="/m", files=["/t.txt"], windows=2, windows_there=5, length=8, seed=1)


def a_layer(columns: int = 5) -> LayerActivations:
    generator = np.random.default_rng(columns)
    counts = np.zeros(1 << 16, np.int64)
    counts[[3, 40_000]] = 6, 16 * columns - 6
    return LayerActivations(
        tensor="blk.0.ffn_down.weight",
        block=0,
        rows=16,
        sampled=16,
        channels=Channels(*generator.random((7, columns))),
        percentiles=generator.random((len(PERCENTS), columns)).astype(np.float32),
        distribution=Distribution(counts, -9.0, 9.0),
        beyond=generator.random(columns),
        peaks=[Peak(window=0, position=3, token="a", channel=2, value=-7.5)],
        batches=generator.random((2, 2)),
    )


def parts(layer: LayerActivations) -> tuple[About, dict[str, np.ndarray]]:
    about = LayerAbout(
        tensors=[layer.tensor], block=0, columns=5, rows=layer.rows, sampled=16, peaks=layer.peaks
    )
    return About(ran=RAN, layers=[about], caches=[]), layer_arrays(0, layer)


def test_what_was_written_is_read(tmp_path):
    layer = a_layer()
    about, arrays = parts(layer)
    size = write_arrays(tmp_path / "a", about.model_dump_json(), arrays, overwrite=False)
    assert (tmp_path / "a").stat().st_size == size
    with read_activations(tmp_path / "a") as found:
        assert found.ran == RAN
        assert found.tensors == [layer.tensor]
        assert found.roles == {"ffn_down": {0: layer.tensor}}
        read = found.layers[layer.tensor]
    assert read.role == "ffn_down"
    assert read.peaks == layer.peaks
    for name in ("percentiles", "beyond", "batches"):
        np.testing.assert_array_equal(getattr(read, name), getattr(layer, name))
    np.testing.assert_array_equal(read.channels.kurtosis, layer.channels.kurtosis)
    np.testing.assert_array_equal(read.distribution.counts, layer.distribution.counts)


@pytest.mark.parametrize("fault", ["version", "other", "lacks", "twice", "shape", "counts", "cut", "text"])
def test_what_is_damaged_is_refused(tmp_path, fault):
    about, arrays = parts(a_layer())
    said = about.model_dump()
    match fault:
        case "version":
            said["version"] = 2
        case "other":
            said["kind"] = "something"
        case "lacks":
            del arrays["0.beyond"]
        case "twice":
            said["layers"][0]["tensors"] *= 2
        case "shape":
            arrays["0.percentiles"] = arrays["0.percentiles"][:4]
        case "counts":
            arrays["0.counts"] = arrays["0.counts"] + 1
    content = b"".join(packed(json.dumps(said), arrays)[1])
    content = {"cut": content[:-9], "text": b"A plain text, no more."}.get(fault, content)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError) as error, read_activations(tmp_path / "a") as found:
        found.layers["blk.0.ffn_down.weight"]
    assert str(error.value).startswith(str(tmp_path / "a"))
    assert "\n" not in str(error.value)
