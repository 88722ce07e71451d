"""A silo hands out the part of its table or of its files that its own file holds out, for the server to measure on.

What is written is a table of the columns that a scenario declares, of held-out persons alone, with a number in place of
each id; or a folder of files of the same kind as the silo's (`fedmodel.data.files_handed_out`). It is not sealed: the
silo's people carry it to the server's operator, who reads it.

Guarantee: a row that is handed out trains at this silo by no answer that is made from then on, by any scenario. By
which word it was held out is kept in the kit before the file, or the folder, has its name, and a table that `silo.toml`
would read by another word is refused (`fedmodel.data.handed_out` says how a table is known again). A folder is written
as NAME.partial until then: what a kill leaves under that name is no part that was handed out. Nothing is handed out of
a table whose `held_out` is not said, nor of a person who withdrew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.outbox import outbox
from fedmodel.config import Scenario, TableSource
from fedmodel.crypto.sealed import opener_from_secret
from fedmodel.data import Withdrawn, add_handed_out, check_sources, held_out_table, read_withdrawn, table_source
from fedmodel.data.files_handed_out import held_out_files
from fedmodel.data.holding_out import as_file, check_hides_a_silo
from fedmodel.data.tables import declared, held_out_part
from fedmodel.errors import ConfigError
from fedmodel.kinds.files import Files
from fedmodel.provision import is_sealed, read_kit, read_law, unlocked
from fedmodel.system.durable import erase_folder, replace_file, sync_folder


@dataclass(frozen=True)
class HandedOut:
    """What was written.

    Attributes:
        file: Where: a file, or a folder.
        table: By which name scenarios call the table.
        kind: By which key the server's own file says under `[tables.NAME]` where it lies there.
        keys: What it has to say besides.
    """

    file: Path
    table: str
    kind: str
    keys: dict[str, Any]


def check_hands_out(kit: Path, scenario: Scenario) -> TableSource:
    """Return where the table lies that a scenario would have held-out rows of.

    Raises:
        ConfigError: When the kit is a simulation's, the silo's own file says nothing of the table or of a share, or
            the scenario's claim is for all that is the silo's.
    """
    if not is_sealed(kit):
        raise ConfigError(f"{kit}: is a simulation's silo; the server's held-out table lies in data.folder there")
    law = read_law(kit)
    config = scenario.data if isinstance(scenario.data, Files) else declared(scenario.data)
    source = table_source(config, law.tables, kit.resolve(), "silo.toml")
    if source.held_out is None:
        raise ConfigError(
            f"[tables.{scenario.data.data_set}] of silo.toml does not say held_out, so no row may be handed out; if the"
            " silo's people agree, add held_out = 0.2, and read `silo policy` again"
        )
    check_hides_a_silo(scenario.privacy.unit, scenario.data.data_set, source)
    check_sources(law, kit.resolve())
    return source


def hand_out(kit: Path, scenario: Scenario, file: Path) -> HandedOut:
    """Write the held-out rows of an unlocked silo's table, which are read back as the server will read them.

    Args:
        kit: The silo's, unlocked (`fedmodel.provision.unlock`).
        scenario: Which columns are handed out.
        file: A new one, .csv where the table is text, and .parquet elsewhere, or a new folder where it is files; for
            its owner alone.

    Raises:
        ConfigError: As `check_hands_out` does, or when the file is there, or its name ends otherwise, or rows were
            handed out before by another word than silo.toml has now.
        DataError: When the table is not as declared, or no row of it is held out.
        OSError: When the file cannot be written.
    """
    source, own = check_hands_out(kit, scenario), unlocked(kit)
    withdrawn = read_withdrawn(kit, opener_from_secret(own.age_secret)).of(scenario.data.data_set, source.person)
    if isinstance(scenario.data, Files):
        return _hand_out_files(kit, scenario.data, source, withdrawn, file)
    config = declared(scenario.data)
    data, kind = as_file(held_out_part(config, source, withdrawn), source.separator)
    if file.suffix != f".{kind}":
        raise ConfigError(f"{file}: this table is handed out as {kind}; give a name that ends in .{kind}")
    if file.exists():
        raise ConfigError(f"{file}: is there already, and nothing is written over it")
    said = source.model_dump(include={"separator", "decimal"} if kind == "csv" else set(), exclude_defaults=True)
    keys = said | source.model_dump(mode="json", include={"yes", "no"}, exclude_defaults=True)
    _keep_word(kit, config.data_set, source)
    replace_file(file.absolute(), data)  # so that an error names more than the current folder
    try:
        held_out_table(config, _at(kind, file, source, keys))
    except BaseException:
        file.unlink()
        raise
    return HandedOut(file, config.data_set, kind, keys)


def _hand_out_files(
    kit: Path, config: Files, source: TableSource, withdrawn: Withdrawn | None, folder: Path
) -> HandedOut:
    """Write the held-out part of a silo's own files as a folder, whole or not at all."""
    if folder.exists():
        raise ConfigError(f"{folder}: is there already, and nothing is written over it")
    beside = folder.absolute().with_name(folder.name + ".partial")
    erase_folder(beside)
    try:
        beside.mkdir(mode=0o700)
        for name, data in held_out_files(config, source, withdrawn):
            (beside / name).parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(beside / name, data)
        held_out_table(config, _at("files", beside, source, {}))
        _keep_word(kit, config.data_set, source)
        beside.rename(folder.absolute())
    except BaseException:
        with suppress(OSError):  # why it ended is what a person has to know; the next hand-out erases it
            erase_folder(beside)
        raise
    sync_folder(folder.absolute().parent)
    return HandedOut(folder, config.data_set, "files", {})


def _at(kind: str, place: Path, source: TableSource, keys: dict[str, Any]) -> TableSource:
    """Return what was written as the server will name it; its own copy of a tokenizer is as the silo's."""
    return TableSource.model_validate({kind: str(place.resolve()), "tokenizer": source.tokenizer, **keys})


def _keep_word(kit: Path, table: str, source: TableSource) -> None:
    """Keep by which word rows are handed out, before anybody has them."""
    own = unlocked(kit)
    with outbox(read_kit(kit), kit):  # an answer that is being made from these rows is waited for
        add_handed_out(kit, opener_from_secret(own.age_secret), own.recipient, table, source)
