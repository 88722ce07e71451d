"""The tables of a rehearsal: all of them this user's, in one folder, and each named in its party's own file.

    DIR/NAME.csv or NAME.parquet             of silo NAME, which its silo.toml then says
    DIR/held-out.csv or held-out.parquet     of the server, which its server.toml then says
    DIR/NAME/ and DIR/held-out/              the same, of files that are no tables
    DIR/tokenizer.json                       where texts are read by one; each party's own file says this place

A folder of a simulation (`folder` under `[data]`) is laid out so, and is taken where none is given. The scenario that
is handed in is the one that was written: it names no place, as that of a deployment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fedmodel.config import Scenario, TableSource, read_server_file, read_silo_file, to_toml
from fedmodel.data.access import simulated_source, unread
from fedmodel.data.folders import unread_beside
from fedmodel.errors import ConfigError
from fedmodel.kinds.files import Files
from fedmodel.kinds.sources.table import HELD_OUT, TableConfig
from fedmodel.kinds.texts import Texts
from fedmodel.system.durable import replace_file

SERVER: Final = "server"

_log = logging.getLogger(__name__)


def own_tables(scenario: Scenario, folder: Path | None) -> tuple[Scenario, dict[str, TableSource]]:
    """Return a scenario that reads its tables from a folder, to be checked with them, and where each party's lies.

    Args:
        scenario: To be rehearsed.
        folder: Of the tables; None for the scenario's own, or where its records are on board.

    Raises:
        ConfigError: When the scenario has no tables and a folder is given, or has some and there is no folder.
        DataError: When a party's table does not lie there.
    """
    data = scenario.data
    if isinstance(data, Files):
        return _own_files(scenario, data, folder)
    if not isinstance(data, TableConfig):
        if folder is not None:
            raise ConfigError(
                f"--tables: scenario {scenario.name!r} has no tables, since data.source = {data.source!r} is on board;"
                ' leave it out, or write data.source = "table"'
            )
        return scenario, {}
    if folder is None and data.folder is None:
        raise ConfigError(
            f"scenario {scenario.name!r} is of tables; give --tables DIR with NAME.csv or NAME.parquet of each silo,"
            f" and {HELD_OUT}.csv or .parquet of the server"
        )
    data = data.model_copy(update={"folder": str(folder or data.folder)}).under(Path.cwd())
    parties = {silo: silo for silo in scenario.federation.silos} | {SERVER: HELD_OUT}
    # Its owner says whose each record is, as each silo would of its own.
    found = {name: simulated_source(data, party).model_copy(update={"person": data.person})
             for name, party in parties.items()}  # fmt: skip
    rehearsed = scenario.model_copy(update={"data": data})
    if (beside := unread(rehearsed)) is not None:
        _log.warning("%s", beside)
    return rehearsed, found


def _own_files(scenario: Scenario, data: Files, folder: Path | None) -> tuple[Scenario, dict[str, TableSource]]:
    """Return the same of files: each party has a folder of its own, in a rehearsal as in a deployment."""
    said = folder or (None if data.folder is None else Path(data.folder))
    if said is None:
        raise ConfigError(
            f"scenario {scenario.name!r} is of files; give --tables DIR with a folder NAME/ of each silo, and"
            f" {HELD_OUT}/ of the server"
        )
    place = said.absolute()
    parties = {silo: silo for silo in scenario.federation.silos} | {SERVER: HELD_OUT}
    for party in parties.values():
        if not (place / party).is_dir():
            raise ConfigError(
                f"{place}: has no folder {party}/; where silos are deployed each has its files in a folder of its own,"
                f" and the server in {HELD_OUT}/"
            )
    if (beside := unread_beside(data, place, scenario.federation.silos)) is not None:
        _log.warning("%s", beside)
    asked = getattr(data, "person", None)
    whose = {} if asked is None else {"person": asked}
    tokenizer = data.tokenizer if isinstance(data, Texts) else None
    more = whose | ({} if tokenizer is None else {"tokenizer": str(place / tokenizer.file)})
    found = {name: TableSource.model_validate({"files": str(place / party), **more}) for name, party in parties.items()}
    return scenario.model_copy(update={"data": data.model_copy(update={"folder": str(place)})}), found


def lay_tables(scenario: Scenario, tables: Mapping[str, TableSource], kits: Path) -> None:
    """Enter into each party's own file where its table lies.

    Args:
        scenario: Which calls the table by its name.
        tables: By party, of `own_tables`; none where records are on board.
        kits: Of a rehearsal.
    """
    for name, source in tables.items():
        path = kits / SERVER / "server.toml" if name == SERVER else kits / "silos" / name / "silo.toml"
        law = read_server_file(path) if name == SERVER else read_silo_file(path)
        said = law.model_copy(update={"tables": {scenario.data.data_set: source}})
        replace_file(path, to_toml(said).encode())
