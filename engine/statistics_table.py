"""Statistics of a model's tensors as a table: CSV, JSON or Parquet, by the name of the file."""

import json
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from engine.api.errors import OutputError
from engine.api.outputs import partial_path
from engine.api.statistics import PERCENTS, WeightStatistics
from engine.api.tables import csv_text
from engine.jobs.errors import explained
from engine.jobs.units import sync_folder

ENDINGS = (".csv", ".json", ".parquet")

Row = dict[str, object]


def row_of(statistics: WeightStatistics) -> Row:
    """One tensor's row, by column; lists as lists."""
    told = statistics
    return {
        "tensor": told.tensor,
        "canonical": told.canonical,
        "role": told.role.value,
        "block": told.block,
        "shape": list(told.shape),
        "dtype": told.dtype,
        "count": told.count,
        "min": told.min,
        "max": told.max,
        "mean": told.mean,
        "std": told.std,
        "absmax": told.absmax,
        "kurtosis": told.kurtosis,
        "zeros": told.zeros,
        **{f"p{percent:g}": value for percent, value in zip(PERCENTS, told.percentiles, strict=True)},
        "beyond_6_sigma": told.beyond_sigmas,
        "large": told.large,
        "outlier_channels": told.outlier_channels,
        "outlier_ratio": told.outlier_ratio,
    }


def refuse_table(path: Path) -> None:
    """Raise `OutputError` where no table can be written under this name, whatever is in it."""
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(f"{path}: a table's name must end in .csv, .json or .parquet.")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise OutputError(
            f"{path}: writing Parquet needs pyarrow, which is missing: install Bitwright with its extra "
            '"parquet", or choose .csv or .json.'
        )


def json_text(model: str, rows: list[Row], left_out: dict[str, str]) -> str:
    """All of it as JSON: `model`, `tensors` (the rows), and by name why others are `left_out`."""
    return json.dumps({"model": model, "tensors": rows, "left_out": left_out}, indent=1)


def write_table(path: Path, model: str, rows: list[Row], left_out: dict[str, str]) -> None:
    """Write the table under a partial name, then rename it. Raises `OutputError`."""
    partial = partial_path(path)
    with explained(path):
        try:
            _write(partial, path.suffix.lower(), model, rows, left_out)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(path.parent)


def _write(path: Path, ending: str, model: str, rows: list[Row], left_out: dict[str, str]) -> None:
    match ending:
        case ".csv":
            text = csv_text(list(rows[0]) if rows else [], (_flat(row) for row in rows))
            path.write_text(text, encoding="utf-8")
        case ".json":
            path.write_text(json_text(model, rows, left_out) + "\n", encoding="utf-8")
        case ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _flat(row: Row) -> list[object]:
    """In one cell each: a shape as 4096x14336, other lists with semicolons."""
    return [
        ("x" if name == "shape" else ";").join(map(str, value)) if isinstance(value, list) else value
        for name, value in row.items()
    ]
