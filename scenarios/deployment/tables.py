"""A party's own table, or its own files, looked at before a run, and sized against what the scenario asks of it.

What is found is for the screen of whoever owns the table. It is returned, and written nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients import policy
from fedmodel import plans
from fedmodel.config import Scenario, SiloFile, TableSource, read_scenario
from fedmodel.data import check_deployed, sizes, table_source
from fedmodel.data.access import simulated_source
from fedmodel.data.findings import Finding, Findings, inspect
from fedmodel.data.findings_of_files import inspect_files
from fedmodel.data.fixing import proposed
from fedmodel.data.lookalikes import table_lookalikes
from fedmodel.data.seen import DATES
from fedmodel.data.sources import is_parquet
from fedmodel.data.tables import declared, person_column
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds.columns import text_column
from fedmodel.kinds.files import Files
from fedmodel.kinds.source import Source
from fedmodel.kinds.sources.table import HELD_OUT, TableConfig
from fedmodel.kinds.texts import Texts
from fedmodel.kinds.tokens import TokenizerConfig
from fedmodel.learning.job_names import check_jobs
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import is_sealed, read_law, scenario_hash
from fedmodel.provision.kits import SCENARIOS


@dataclass(frozen=True)
class Table:
    """Whose table is looked at.

    Attributes:
        config: Declares it.
        source: Where it lies, with absolute paths.
        party: A silo's name, or the server's; None where nobody says.
        plan: What the scenario asks of that silo; None of the server, or where it is not known.
    """

    config: TableConfig | Files
    source: TableSource
    party: str | None
    plan: SiloPlan | None


@dataclass(frozen=True)
class Checked:
    """What is to be said of a table. Sensitive.

    Attributes:
        table: Whose.
        findings: What a run would find in it.
        notes: What is besides to be said of how many records there are, and of ids that look alike.
        used: How many records a run uses, of each unit no more than the scenario says.
        keys: What `--fix` would add to the silo's own file.
    """

    table: Table
    findings: Findings
    notes: tuple[Finding, ...]
    used: int
    keys: dict[str, Any]

    @property
    def refused(self) -> bool:
        """Whether a run refuses the table."""
        return self.findings.refused or any(one.refuses for one in self.notes)

    def __repr__(self) -> str:
        return "Checked(...)"  # a repr ends up in logs


def table_of_kit(scenario: Scenario, kit: Path) -> Table:
    """Return a deployed silo's own table, as its law says.

    Raises:
        ConfigError: When there is no such kit, the scenario has no such silo, or the law no such table.
    """
    law = read_law(kit)
    if law.name not in scenario.federation.silos:
        raise ConfigError(f"{kit}: is silo {law.name!r}'s, which the scenario does not name")
    config = _own(scenario.data)
    return Table(
        config, table_source(config, law.tables, kit.resolve(), "silo.toml"), law.name, _plan(scenario, law.name)
    )


def table_at(scenario: Scenario, word: str) -> Table:
    """Return a table by NAME=PATH, NAME being a silo of the scenario, `held-out`, or the data set.

    Raises:
        ConfigError: When it is neither, or the path's name ends in nothing that is read.
    """
    config = _own(scenario.data)
    name, equals, path = word.partition("=")
    parties = (*scenario.federation.silos, HELD_OUT)
    if not equals or not path or name not in (*parties, config.data_set):
        raise ConfigError(
            f"--table {word}: expected NAME=PATH, NAME being {config.data_set!r} or one of {', '.join(parties)}"
        )
    source = _source_at(config, name, Path(path).absolute())
    if name not in parties:
        silos = [silo for silo in scenario.federation.silos if silo not in scenario.privacy.silo]
        return Table(config, source, None, _plan(scenario, silos[0]) if silos else None)
    return Table(config, source, name, None if name == HELD_OUT else _plan(scenario, name))


def tables_of_folder(scenario: Scenario) -> list[Table]:
    """Return every party's table of a simulation.

    Raises:
        ConfigError: When the scenario names no folder.
        DataError: When a party's file is not there.
    """
    if isinstance(scenario.data, Files):
        raise ConfigError(
            f"data.source = {scenario.data.source!r}: name a folder to look at, as in --table"
            f" {scenario.data.data_set}=FOLDER, or a silo's kit"
        )
    config = declared(scenario.data.under(Path.cwd()))
    return [
        Table(config, simulated_source(config, party), party, None if party == HELD_OUT else _plan(scenario, party))
        for party in (*scenario.federation.silos, HELD_OUT)
    ]


def _own(data: Source) -> TableConfig | Files:
    """Return what a scenario declares of a party's own."""
    return data if isinstance(data, Files) else declared(data)


def _source_at(config: TableConfig | Files, name: str, place: Path) -> TableSource:
    """Return a path as a party's own file would name it, read as the scenario reads it."""
    if isinstance(config, Files):
        asked = getattr(config, "person", None)
        tokenizer = config.tokenizer if isinstance(config, Texts) else None
        beside = {} if tokenizer is None else {"tokenizer": str(_tokenizer_at(tokenizer, config.folder, place))}
        return TableSource.model_validate(
            {"files": str(place), **beside, **({} if asked is None else {"person": asked})}
        )
    kind = "folder" if place.is_dir() else "parquet" if is_parquet(place) else "csv"
    said = config.csv.get(name)
    form = {} if said is None or kind == "parquet" else said.model_dump()
    person = {} if config.person is None else {"person": config.person.model_dump()}
    text = text_column(config.columns)
    tokenizer = None if text is None else text.tokenizer
    beside = {} if tokenizer is None else {"tokenizer": str(_tokenizer_at(tokenizer, config.folder, place))}
    return TableSource.model_validate({kind: str(place), **beside, **form, **person})


def _tokenizer_at(tokenizer: TokenizerConfig, folder: str | None, place: Path) -> Path:
    """Return where a tokenizer's file lies that the scenario asks for: in the data's folder, or beside the data."""
    return (place.parent if folder is None else Path(folder).absolute()) / tokenizer.file


def _plan(scenario: Scenario, silo: str) -> SiloPlan:
    return scenario.plan(silo)


def check(table: Table, *, fix: bool = False) -> Checked:
    """Read a table as a run would, and return all that is to be said of it.

    Args:
        table: Whose.
        fix: Read it as it would be read once the silo's own file said what is proposed.

    Raises:
        ConfigError: When a package is missing, a database's account could write, or the silo's own file contradicts
            the scenario.
        DataError: When nothing can be proposed for a table that cannot be opened.
    """
    if isinstance(table.config, Files):
        found = inspect_files(table.config, table.source)
        used = _used(table.plan, found.person_N)
        return Checked(table, found, () if found.refused else tuple(_sizes(table.plan, used)), used, {})
    keys = proposed(table.config, table.source) if fix else {}
    source = TableSource.model_validate({**table.source.model_dump(exclude_none=True), **keys})
    findings = inspect(table.config, source)
    used = _used(table.plan, findings.person_N)
    # Of a table that is not read nobody knows how many records it has.
    notes = (
        []
        if findings.refused
        else [
            *_sizes(table.plan, used),
            *_classes(table.config, findings),
            *_dates(findings),
            *_alike(table.config, source),
        ]
    )
    return Checked(table, findings, tuple(notes), used, keys)


def tables_at_start(kit: Path, law: SiloFile) -> tuple[list[tuple[Scenario, Table]], list[str]]:
    """Return the tables that a silo's law and the scenarios in its kit are about, and names of tables without one.

    Raises:
        ConfigError: When a copy is not acceptable, or the scenario's silos are others.
    """
    if not law.tables:
        return [], []
    copies = [read_scenario(str(path)) for path in sorted((kit / SCENARIOS).glob("*.toml"))]
    named = [one for one in copies if scenario_hash(one).hex() in law.scenarios and one.data.data_set in law.tables]
    missing = [name for name in law.tables if name not in {one.data.data_set for one in named}]
    return [(one, table_of_kit(one, kit)) for one in named], missing


def why_not_ready(scenario: Scenario, kit: Path) -> list[str]:
    """Return all reasons for which a silo is not ready for a run: by law, code, and its table's file and columns.

    Each part that the run would reserve is held to the law, training and what comes besides, as when a run begins.

    A silo's answer to a server hangs on these, on its hours, its keys and its ledger, which are looked at when a run
    begins. No value of a record, and no number of records, changes any of them.

    Raises:
        ConfigError: When the kit is not a silo's, or its law is not acceptable.
    """
    law = read_law(kit)
    plan, parts = scenario.plan(law.name), plans.planned_parts(scenario, law.name)
    simulated = not is_sealed(kit)
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_jobs(scenario.besides),
        lambda: check_deployed(scenario, law, kit.resolve()),
        lambda: policy.check_admitted(law, scenario),
        lambda: policy.check_code(law),
        *(partial(policy.check_event, law, part, simulated=simulated) for part in parts),
        lambda: policy.check_noise_levels(law, scenario, plans.pipeline_event(plan, parts[0])),
    )
    reasons = []
    for check_one in checks:
        try:
            check_one()
        except FedmodelError as error:
            reasons.append(str(error))
    return reasons


def _used(plan: SiloPlan | None, person_N: NDArray[np.int64]) -> int:
    """Return how many records are used, of each unit no more than the plan has."""
    if plan is None or plan.unit == "record":
        return len(person_N)
    if plan.unit == "client":
        return min(len(person_N), plan.max_records)
    return int(np.minimum(np.bincount(person_N), plan.max_records).sum())


def _sizes(plan: SiloPlan | None, records: int) -> list[Finding]:
    """Return what does not fit how many records there are."""
    if plan is None:
        return []
    noise = plans.pipeline_event(plan, plans.planned_event(plan)).noise_multiplier
    said = (
        (sizes.under_a_lot(plan, records), False),
        *((far, False) for far in sizes.far_from_divisors([(plan, records)])),
        (sizes.over_delta(plan, records), False),
        (sizes.over_the_grid(noise, records), True),
    )
    return [
        Finding(text.partition("; ")[0], text.partition("; ")[2], refuses=refuses)
        for text, refuses in said
        if text is not None
    ]


def _classes(config: TableConfig, findings: Findings) -> list[Finding]:
    """Return that some classes have no record, which a table with codes of its own looks like."""
    if not findings.absent:
        return []
    what = f"no record that a run has is of these classes: {', '.join(findings.absent)}"
    settled = (
        "nothing, where that is so; if the source has codes of its own, such as 1 and 2 for 0 and 1, translate all of"
        " them: a code that is declared is read as the declared class"
    )
    return [Finding(what, settled, refuses=False, column=str(config.label))]


def _dates(findings: Findings) -> list[Finding]:
    """Return that ids of persons look like dates, so that another column may be the one that says whose a record is."""
    what = "the ids look like dates, so that all records of one day would be one person's"
    settled = "person in the scenario and in silo.toml: the column that says whose a record is"
    return [
        Finding(what, settled, refuses=False, where=line.where, column=line.column)
        for line in findings.lines
        if (line.declared, line.seen) == ("id", DATES)
    ]


def _alike(config: TableConfig, source: TableSource) -> list[Finding]:
    """Return that some ids look like one person's, where the table says whose each record is."""
    person = person_column(config, source)
    if person is None:
        return []
    groups = table_lookalikes(source, person)
    if not groups:
        return []
    what = (
        f"ids that are several persons' by form {person.form!r} look like one person's, groups of them: {len(groups)}"
    )
    settled = f'form of person under [tables.{config.data_set}] in silo.toml, "caseless" or "digits"; or mend the ids'
    return [Finding(what, settled, refuses=False, column=person.column, values=tuple(map(", ".join, groups[:5])))]
