"""Statistics of importance matrices against llama-imatrix's formulas, written out value by value."""

from math import log2, sqrt

import numpy as np
import pytest

from engine.api.importance import unseen_named
from engine.calibration.importance_files import read_importance
from engine.calibration.statistics import summarize, unseen_experts
from resources import SAMPLE_MODEL
from tests.engine.calibration.matrices import importance


def by_hand(sums: list[list[float]], counts: list[int]) -> dict[str, float]:
    """As llama-imatrix computes them for a tensor."""
    values = [value / count for row, count in zip(sums, counts, strict=True) for value in row]
    total, n = sum(values), len(values)
    mean = total / n
    deviation = sqrt(max(0.0, sum(value * value for value in values) / n - mean * mean))
    shares = [value / total for value in values]
    return {
        "sum": total,
        "minimum": min(values),
        "maximum": max(values),
        "mean": mean,
        "deviation": deviation,
        "active": 1 - sum(value <= 1e-5 for value in values) / n,
        "entropy": -sum(share * log2(share) for share in shares if share > 0),
        "z_density": sum((value - mean) / deviation > 1 for value in values) / n,
        "columns": n,
    }


def test_the_sample_s_tensors():
    found = read_importance(SAMPLE_MODEL / "imatrix.gguf")
    summary = summarize(found, ["i.gguf"])
    assert [one.tensor for one in summary.tensors][:2] == ["blk.0.attn_k.weight", "blk.0.attn_output.weight"]
    for one in summary.tensors:
        entry = found.entries[one.tensor]
        sums = [[float(value) for value in row] for row in entry.sums]
        expected = by_hand(sums, entry.counts.tolist())
        told = {name: getattr(one, name) for name in expected}
        assert told == pytest.approx(expected, rel=1e-9), one.tensor
        assert one.entropy_share == pytest.approx(one.entropy / log2(one.columns))
        if one.block == 0:
            assert one.cosine is None
            continue
        before = found.entries[one.tensor.replace(f"blk.{one.block}.", f"blk.{one.block - 1}.")].sums[0]
        dot = sum(float(a) * float(b) for a, b in zip(entry.sums[0], before, strict=True))
        lengths = sqrt(sum(float(a) ** 2 for a in entry.sums[0])) * sqrt(sum(float(b) ** 2 for b in before))
        assert one.cosine == pytest.approx(dot / lengths, rel=1e-6)


def test_layers_are_means_weighted_by_columns():
    made = importance(
        blk__0__x=([[1.0, 3.0]], [1]),
        blk__1__x=([[3.0, 1.0]], [1]),
        blk__1__y=([[5.0, 5.0, 5.0, 25.0]], [5]),
        output=([[1.0, 1.0]], [1]),
    )
    first, second = summarize(made, []).layers
    assert (first.block, first.sum, first.cosine) == (0, 4, None)
    assert second.sum == pytest.approx((2 * 4 + 4 * 8) / 6)
    assert second.z_density == pytest.approx((2 * 0 + 4 * 0.25) / 6)  # 5 is one deviation above 2
    assert second.cosine == pytest.approx(0.6)  # of x alone: there is no y before


def test_experts_without_tokens_are_named_and_left_out():
    made = importance(
        blk__0__ffn_up_exps__weight=([[2.0, 4.0], [0.0, 0.0], [8.0, 4.0], [0.0, 0.0]], [2, 0, 4, 5])
    )
    summary = summarize(made, [])
    [one], [unseen] = summary.tensors, summary.unseen
    assert (one.matrices, one.columns, one.tokens, one.sum) == (4, 4, 11, 1 + 2 + 2 + 1)
    assert (unseen.tensor, unseen.experts, unseen.matrices) == ("blk.0.ffn_up_exps.weight", [1, 3], 4)
    assert str(unseen) == "blk.0.ffn_up_exps (1, 3 of 4)"


def test_a_plain_matrix_is_no_expert():
    made = importance(
        blk__0__attn_q__weight=([[0.0, 0.0]], [7]),
        blk__1__attn_q__weight=([[0.0, 0.0]], [0]),
        blk__1__ffn_up_exps__weight=([[1.0], [0.0]], [1, 0]),
    )
    assert unseen_named(unseen_experts(made)) == [
        "no token of the calibration text, or nothing but zeros, reached these experts: "
        "blk.1.ffn_up_exps (1 of 2)",
        "nothing but zeros reached these matrices: blk.0.attn_q, blk.1.attn_q",
    ]
    [last] = unseen_named(unseen_experts(made)[:1] * 9)
    assert last.endswith("blk.0.attn_q and 3 more")


def test_a_tensor_that_saw_nothing_and_one_without_variation():
    made = importance(blk__0__a=([[0.0, 0.0]], [0]), blk__1__a=([[2.0, 2.0]], [1]), b=([[3.0]], [1]))
    nothing, even, single = summarize(made, []).tensors
    assert (nothing.columns, nothing.sum, nothing.minimum, nothing.entropy, nothing.active) == (0,) * 5
    assert (even.deviation, even.z_density, even.entropy, even.entropy_share) == (0, 0, 1, 1)
    assert even.cosine is None  # with nothing but zeros
    assert (single.block, single.entropy, single.entropy_share) == (None, 0, 0)


def test_the_table_is_a_csv_of_exact_figures():
    made = importance(blk__0__a=([[1.0, 2.0]], [3]))
    head, line = summarize(made, []).to_csv().splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True))
    assert (cells["tensor"], cells["cosine"], cells["block"]) == ("blk.0.a", "", "0")
    assert float(cells["sum"]) == float(np.float32(1)) / 3 + float(np.float32(2)) / 3
