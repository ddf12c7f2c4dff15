"""Statistics of a model's tensors as a table: CSV, JSON or Parquet, by the name of the file."""

import json
from importlib.util import find_spec
from pathlib import Path

from engine.api.errors import OutputError
from engine.api.statistics import PERCENTS, QuantizationError, WeightStatistics
from engine.api.tables import csv_text
from engine.jobs.partial import whole_file

ENDINGS = (".csv", ".json", ".parquet")

ERROR_COLUMNS = {
    "format": "format",
    "method": "method",
    "squared": "squared_error",
    "mean_squared": "mean_squared_error",
    "snr": "snr_db",
    "cosine": "cosine",
    "saturation": "saturation",
    "levels_used": "levels_used",
    "levels": "levels",
    "worst_channel": "worst_channel",
    "worst_channel_error": "worst_channel_error",
}
"""Columns by the fields of `QuantizationError`."""

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


def error_columns(error: QuantizationError | None) -> Row:
    """What a recipe makes of the tensor, in further columns; None in all where nothing can be said."""
    if error is None:
        return dict.fromkeys(ERROR_COLUMNS.values())
    told = error.model_dump()
    return {column: told[name] for name, column in ERROR_COLUMNS.items()}


def refuse_table(path: Path) -> None:
    """Raise `OutputError` where no table can be written under this name, whatever is in it."""
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(f"{path}: a table's name must end in .csv, .json or .parquet.")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise OutputError(
            f"{path}: writing Parquet needs pyarrow, which is missing: install Bitwright with its extra "
            '"parquet", or choose .csv or .json.'
        )


def json_text(about: dict[str, object], rows: list[Row], called: str = "tensors") -> str:
    """All of it as JSON: what the table is `about`, and the rows as they are `called`."""
    return json.dumps(about | {called: rows}, indent=1)


def write_table(path: Path, about: dict[str, object], rows: list[Row], called: str = "tensors") -> None:
    """Write the table under a partial name, then rename it. Raises `OutputError`.

    `about`: the model, what is left out and why, and what the rows are `called`; only JSON has room for it.
    """
    with whole_file(path) as partial:
        if path.suffix.lower() == ".json":
            partial.write_text(json_text(about, rows, called) + "\n", encoding="utf-8")
        else:
            _write(partial, path.suffix.lower(), rows)


def _write(path: Path, ending: str, rows: list[Row]) -> None:
    match ending:
        case ".csv":
            text = csv_text(list(rows[0]) if rows else [], (_flat(row) for row in rows))
            path.write_text(text, encoding="utf-8")
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
