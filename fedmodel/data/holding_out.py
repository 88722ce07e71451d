"""Which persons of a silo's own table it holds out for the server to measure on, as its own file says.

`held_out = 0.2` in `[tables.NAME]` of `silo.toml` holds out about a fifth of the table's persons, with all their rows.

Guarantee: whether a person is held out is a function of the normal form of her id and of the share, and of nothing
else: no other row, scenario, run or table. So no held-out row is among those that train, whatever is added to the table
or asked of it; one more record moves no other; and who is held out at one share is held out at every larger one.

Does NOT protect whom it holds out: their rows are handed to the server's operator as they are, figures that are
measured on them leave without noise, and no epsilon covers them. Does not know that a share was larger before, or a
form another: `fedmodel.data.handed_out` does.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Final

from fedmodel.config import TableSource
from fedmodel.errors import ConfigError
from fedmodel.privacy.events import UnitName

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL: Final = b"fedmodel/v1/held-out\0"


def is_held_out(normal: str, share: float) -> bool:
    """Return whether a person is held out.

    Args:
        normal: The normal form of her id. Sensitive.
        share: Of persons, in (0, 1).

    >>> [is_held_out(str(number), 0.5) for number in range(6)]
    [True, True, True, True, False, True]
    """
    drawn = int.from_bytes(hashlib.sha256(_LABEL + normal.encode()).digest()[:8])
    return drawn < share * 2.0**64


def check_hides_a_silo(unit: UnitName, table: str, source: TableSource) -> None:
    """Refuse a claim that hides all that is a silo's, of a table of which a share is handed out.

    Args:
        unit: Whom the claim is for.
        table: Its name in the silo's own file.
        source: What that file says of it.

    Raises:
        ConfigError: When it is so.
    """
    if unit == "client" and source.held_out is not None:
        raise ConfigError(
            f"[tables.{table}] of silo.toml says held_out, and exact figures are told of what the server is handed;"
            ' privacy.unit = "client" hides all that is a silo\'s. Leave held_out out, and let the server have records'
            ' of its own, or claim for persons or records, unit = "person" or "record"'
        )


def held_out_rows(normal: pa.ChunkedArray, share: float) -> pa.ChunkedArray:
    """Return for each row, by the normal form of whose it is, whether it is held out. Sensitive."""
    import pyarrow as pa

    coded = normal.combine_chunks().dictionary_encode()
    held = pa.array([is_held_out(one, share) for one in coded.dictionary.to_pylist()], pa.bool_())
    return pa.chunked_array([held.take(coded.indices)], pa.bool_())


def as_file(table: pa.Table, separator: str) -> tuple[bytes, str]:
    """Return rows as a file, and its kind: "csv" where all of it is text, or "parquet"."""
    from pyarrow import csv, parquet, types

    sink = io.BytesIO()
    if all(types.is_large_string(one.type) or types.is_string(one.type) for one in table.schema):
        csv.write_csv(table, sink, csv.WriteOptions(delimiter=separator))
        return sink.getvalue(), "csv"
    parquet.write_table(table, sink)
    return sink.getvalue(), "parquet"
