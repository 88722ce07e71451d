"""Who gets which records: a simulated silo, a deployed one, and the server for its evaluation.

| Source   | A simulated silo                  | A deployed silo                  | The server                     |
|----------|-----------------------------------|----------------------------------|--------------------------------|
| on board | its part of the deal              | its part of the deal             | the held-out part of the deal  |
| `own`    | its part of what a function gave  | refused                          | the test part, or a held-out   |
|          |                                   |                                  | share                          |
| files    | `FOLDER/<silo>/`, or its part of  | the folder that `files` of       | `FOLDER/held-out/`, or a       |
|          | the deal                          | `[tables.NAME]` names in its     | held-out share; deployed as a  |
|          |                                   | silo.toml                        | silo, by its server.toml       |
| `table`  | `FOLDER/<silo>.csv` or `.parquet` | `[tables.NAME]` of its silo.toml | `FOLDER/held-out.csv`, or      |
|          |                                   |                                  | `[tables.NAME]` of server.toml |

FOLDER is `folder` under `[data]`, and only a simulation reads it: a scenario comes from the server, and no server says
which of a silo's files are read. A deployed silo asks `deployed_records`, and nothing else, for what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedmodel.config import Scenario, SiloFile, TableSource
from fedmodel.data.cache import Cache
from fedmodel.data.files import check_files, files_records
from fedmodel.data.folders import folder_dealt, silos_there, unread_beside, unread_tables
from fedmodel.data.handed_out import Handed, check_holds_out
from fedmodel.data.headers import check_columns
from fedmodel.data.holding_out import check_hides_a_silo
from fedmodel.data.own import gives_one, own_dealt
from fedmodel.data.records import Records, dealt
from fedmodel.data.same_source import check_sources
from fedmodel.data.sources import identity
from fedmodel.data.tables import check_text, declared, names_of, person_column, table_records
from fedmodel.data.withdrawn import Withdrawals, Withdrawn
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.columns import text_column
from fedmodel.kinds.files import Files
from fedmodel.kinds.partitions.dirichlet import Dirichlet
from fedmodel.kinds.source import Source
from fedmodel.kinds.sources.own import OwnConfig
from fedmodel.kinds.sources.table import HELD_OUT, TableConfig


def silo_records(scenario: Scenario, silo: str) -> Records:
    """Return the records of one silo of a simulation, no unit's more than the scenario's privacy unit has.

    Raises:
        ConfigError: When the scenario names no such silo.
        DataError: When the records cannot be dealt out as declared, or a table is not as declared.
    """
    _check_silo(scenario, silo)
    if scenario.data.is_dealt:
        return _capped(scenario, silo, _dealt(scenario)[1][scenario.federation.places[silo]])
    return _capped(scenario, silo, _simulated(declared(scenario.data), silo))


def held_out_records(scenario: Scenario) -> Records:
    """Return the test records of a simulation's server, which no silo trains on.

    Raises:
        DataError: When there is none, or a table is not as declared.
    """
    if scenario.data.is_dealt:
        return _dealt(scenario)[0]
    table = declared(scenario.data)
    return _to_evaluate_on(table, _simulated(table, HELD_OUT), f"{table.folder}/{HELD_OUT}")


def may_deal_more(scenario: Scenario, records: int) -> bool:
    """Return whether a larger `min_records` may give each silo of a simulation so many records.

    It may where one data set is dealt that has so many, and not where each silo has its own; and by the kind of
    partition that draws until each silo has enough, where others refuse.

    Raises:
        FedmodelError: As `silo_records` does.
    """
    data, silos = scenario.data, scenario.federation.silos
    if not data.is_dealt or not isinstance(getattr(data, "partition", None), Dirichlet):
        return False
    if sum(map(len, _dealt(scenario)[1])) < len(silos) * records:
        return False
    if isinstance(data, Files):
        return data.folder is not None and not silos_there(Path(data.folder), silos)
    return not isinstance(data, OwnConfig) or gives_one(scenario)


def unread(scenario: Scenario) -> str | None:
    """Return which folders or tables beside the silos' a simulation does not read, in one line; None where none is so.

    Raises:
        DataError: When the folder that they lie in cannot be looked into.
    """
    data, silos = scenario.data, scenario.federation.silos
    if isinstance(data, Files) and data.folder is not None:
        return unread_beside(data, Path(data.folder), silos)
    if isinstance(data, TableConfig) and data.folder is not None:
        return unread_tables(Path(data.folder), silos)
    return None


def deployed_records(
    scenario: Scenario,
    law: SiloFile,
    home: Path,
    cache: Cache | None,
    withdrawn: Withdrawals | None = None,
    handed: Mapping[str, Handed] | None = None,
) -> Records:
    """Return the records of a deployed silo, no unit's more than the scenario's privacy unit has. Sensitive.

    Args:
        scenario: What is to be done; of a table it gives the columns, and no place.
        law: The silo's own, which says where its tables lie.
        home: The folder of `silo.toml`, from which relative paths begin.
        cache: Where what was read is kept, sealed; None to read anew every time.
        withdrawn: The list of who withdrew, whose records are not read.
        handed: What of the silo's tables was handed out.

    Raises:
        ConfigError: When the law does not say where the table lies, an account could write, or persons withdrew by
            another word on whose a record is, or persons would train who were handed out; or the claim is for all that
            is the silo's, and a share of the table is held out.
        DataError: When the table is not as declared. It has no code of its own: what leaves is "internal".
        PolicyRefused: When the table, as it was read, is what another budget counts.
    """
    _check_silo(scenario, law.name)
    check_read_by_silos(scenario.data)
    if not scenario.data.is_own:
        return silo_records(scenario, law.name)
    name = scenario.data.data_set
    source = table_source(scenario.data, law.tables, home, "silo.toml")
    if isinstance(scenario.data, TableConfig):
        _check_form(scenario.data, source)
    check_hides_a_silo(scenario.plan(law.name).unit, name, source)
    check_holds_out(handed or {}, name, source)
    gone = None if withdrawn is None else withdrawn.of(name, source.person)
    records = own_records(scenario.data, source, cache, gone)
    # A file could be put in another's place between the charge and the reading of it.
    check_sources(law, home)
    return _capped(scenario, law.name, records)


def check_deployed(scenario: Scenario, law: SiloFile, home: Path) -> None:
    """Refuse a scenario whose table or files this silo could not open, or whose columns they do not have.

    Guarantee: the answer hangs on the scenario, on the law, on where the table or the files lie, on the names of
    columns (`fedmodel.data.headers`, `fedmodel.data.files.check_files`), on whether its files can be looked at, and
    on whether its source is one that another budget counts (`check_sources`). It hangs on no value of a record beside
    that, nor on how many there are. A server may be told whether it is refused.

    Args:
        scenario: What is to be done.
        law: The silo's own.
        home: The folder of `silo.toml`, from which relative paths begin.

    Raises:
        ConfigError: When the law does not say where the table lies, or says it otherwise than the scenario can be read
            by; or an account could write, or a share is held out of what the claim hides.
        DataError: When it cannot be opened, or has other columns than it may.
        PolicyRefused: When the table is what another budget counts.
    """
    _check_silo(scenario, law.name)
    check_read_by_silos(scenario.data)
    if not scenario.data.is_own:
        return
    source = table_source(scenario.data, law.tables, home, "silo.toml")
    check_hides_a_silo(scenario.plan(law.name).unit, scenario.data.data_set, source)
    if isinstance(scenario.data, Files):
        check_files(scenario.data, source)
    else:
        table = declared(scenario.data)
        _check_form(table, source)
        person_column(table, source)
        check_columns(table, source, names_of(table))
        check_text(table, source)
    check_sources(law, home)


def check_read_by_silos(config: Source) -> None:
    """Refuse a source that no deployed silo reads.

    Raises:
        ConfigError: With the reason.
    """
    if (reason := config.why_not_deployed()) is not None:
        raise ConfigError(reason)


def held_out_table(config: Source, source: TableSource, cache: Cache | None = None) -> Records:
    """Return the test records of a deployed server, from its own table; whole, since nothing is claimed for them.

    Raises:
        ConfigError: When an account could write.
        DataError: When the table is not as declared, or holds no record to evaluate on.
    """
    where = source.csv or source.parquet or source.folder or source.files or "the query"
    return _to_evaluate_on(config, own_records(config, source, cache), where)


def own_records(
    config: Source, source: TableSource, cache: Cache | None = None, withdrawn: Withdrawn | None = None
) -> Records:
    """Return the records of a party's own table, or of its own files. Sensitive.

    Raises:
        FedmodelError: As `fedmodel.data.tables.table_records` and `fedmodel.data.files.files_records` do.
    """
    if isinstance(config, Files):
        return files_records(config, source, cache, withdrawn)
    return table_records(declared(config), source, cache, withdrawn)


def table_source(config: Source, tables: Mapping[str, TableSource], home: Path, file: str) -> TableSource:
    """Return where a scenario's table lies, by a party's own file, with paths that begin at that file's folder.

    Raises:
        ConfigError: When the file does not say, or says it of a table where the scenario is of files, or the other
            way about.
    """
    name, is_of_files = config.data_set, isinstance(config, Files)
    said = "files, a folder" if is_of_files else "csv, parquet, folder, or url and query"
    if name not in tables:
        what = "data set" if is_of_files else "table"
        raise ConfigError(f"{file} does not say where {what} {name!r} lies; add [tables.{name}] with {said}")
    if (tables[name].files is not None) != is_of_files:
        raise ConfigError(
            f"{file} says under [tables.{name}] that it is {'no table' if tables[name].files else 'a table'}, and the"
            f' scenario says source = "{config.source}"; give {said}'
        )
    return tables[name].under(home)


def _dealt(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return what is held out and every silo's part: of what is on board, of files, or of a user's own."""
    if isinstance(scenario.data, Files):
        return folder_dealt(scenario)
    return own_dealt(scenario) if isinstance(scenario.data, OwnConfig) else dealt(scenario)


def _to_evaluate_on(config: Source, records: Records, where: str) -> Records:
    """Refuse test records of which there are none."""
    if not len(records):
        raise DataError(
            f"table {config.data_set!r}, {where}: the server's holds no record, so no model could be evaluated; put"
            " some there whose values are neither missing nor unknown where such records are dropped"
        )
    return records


def _check_silo(scenario: Scenario, silo: str) -> None:
    """Refuse a silo that the scenario does not name."""
    if silo not in scenario.federation.places:
        raise ConfigError(f"silo {silo!r} is none of {', '.join(scenario.federation.silos)}")


def _check_form(config: TableConfig, source: TableSource) -> None:
    """Refuse to tell persons apart by a form that the silo's own file does not say: it alone knows its ids."""
    if config.person is not None and source.person is None and config.person.form != "text":
        raise ConfigError(
            f'the scenario reads the ids of {config.data_set!r} as form = "{config.person.form}", and silo.toml does'
            f' not say so; if that is right add person = {{column = "{config.person.column}", form ='
            f' "{config.person.form}"}} to [tables.{config.data_set}]'
        )


def _capped(scenario: Scenario, silo: str, records: Records) -> Records:
    plan = scenario.plan(silo)
    return records.capped(plan.unit, plan.max_records)


def _simulated(config: TableConfig, party: str) -> Records:
    """Return a party's records out of a simulation's folder."""
    source = simulated_source(config, party)
    return _read(config.model_dump_json(), source.model_dump_json(), identity(source))


def simulated_source(config: TableConfig, party: str) -> TableSource:
    """Return where a party's table and its tokenizer lie in a simulation's folder, and how it is written.

    Raises:
        ConfigError: When the scenario names no folder.
        DataError: When there is no such file, or two.
    """
    if config.folder is None:
        raise ConfigError(
            "data.folder is missing: a simulation reads each silo's table from FOLDER/<silo>.csv or .parquet, and the"
            " server's from FOLDER/held-out.csv or .parquet"
        )
    folder = Path(config.folder)
    found = [path for kind in ("csv", "parquet") if (path := folder / f"{party}.{kind}").is_file()]
    if len(found) != 1:
        no_folder = "; nor is that folder: a relative one begins where the command is run" * (not folder.is_dir())
        raise DataError(
            f"{folder}: {'both' if found else 'neither'} of {party}.csv and {party}.parquet there; exactly one is read"
            + no_folder
        )
    kind = found[0].suffix[1:]
    form = config.csv[party].model_dump() if party in config.csv else {}
    if kind == "parquet":
        form = {key: form[key] for key in ("yes", "no") if key in form}
    text = text_column(config.columns)
    beside = {} if text is None or text.tokenizer is None else {"tokenizer": str(folder / text.tokenizer.file)}
    return TableSource.model_validate({kind: str(found[0]), **beside, **form})


@lru_cache(maxsize=256)
def _read(config_json: str, source_json: str, _: bytes) -> Records:
    """Read a simulated party's table, once a process for as long as its file is the same."""
    return table_records(TableConfig.model_validate_json(config_json), TableSource.model_validate_json(source_json))
