"""A person withdraws: whoever holds a silo's kit enters the ids, and no later step of the silo reads their records.

Guarantee: when `withdraw` has returned, no answer of the silo is being made from those records, and none will be: an
answer is made, and the list is written, under one lock (`clients.outbox`). Caches that hold those records are gone; one
that a silo wrote at that very moment, as it joined a run, is never used, and is replaced with its next answer. Nothing
is entered into the ledger or the log, whose lengths a server may see, and nothing is given back.

Does NOT take out of a model what it learnt: what was released before stays covered by its epsilon. Does not reach rows
that were handed to the server's operator: `Withdrawal.handed_out` says where there may be some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clients.outbox import outbox
from fedmodel.config import PersonColumn
from fedmodel.crypto.sealed import opener_from_secret
from fedmodel.data import Withdrawn, add_withdrawn, read_handed_out
from fedmodel.data.ids import ids_in
from fedmodel.data.persons import normal_id
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.provision import is_sealed, read_kit, read_law, unlocked
from fedmodel.system.durable import sync_folder


@dataclass(frozen=True)
class Withdrawal:
    """What was entered, for the operator's eyes alone.

    Attributes:
        tables: From which the persons withdrew.
        not_found: By table, the lines of the ids that no record of it has now.
        not_read: By table that could not be read to look for them, why.
        left_out: The silo's other tables, from which they did not withdraw.
        handed_out: Of which tables rows were handed out, theirs maybe among them.
    """

    tables: tuple[str, ...]
    not_found: Mapping[str, list[int]]
    not_read: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    handed_out: tuple[str, ...] = ()


def check_withdrawable(kit: Path, table: str | None) -> dict[str, PersonColumn]:
    """Return from which tables persons would withdraw, and whose a row is there: the one named, or all of the silo's.

    Raises:
        ConfigError: When the kit is a simulation's, or a table is not the silo's, or nothing says whose its rows are.
    """
    law = read_law(kit)
    if not is_sealed(kit):
        raise ConfigError(f"{kit}: is a simulation's silo, which has no table of its own; leave rows out of its file")
    if table is not None and table not in law.tables:
        raise ConfigError(f"--table {table}: silo.toml has no such table; known: {', '.join(law.tables) or 'none'}")
    chosen = tuple(law.tables) if table is None else (table,)
    if not chosen:
        raise ConfigError(f"{kit}: silo.toml has no table, so there is nothing that a person could withdraw from")
    persons = {}
    for name in chosen:
        person = law.tables[name].person
        if person is None:
            raise ConfigError(
                f"[tables.{name}] of silo.toml does not say whose a row is; add person, as in person = {{column ="
                ' "patient_id", form = "digits"}, or name with --table another from which the persons withdraw'
            )
        persons[name] = person
    return persons


def withdraw(kit: Path, file: Path, table: str | None) -> Withdrawal:
    """Enter the persons whose ids a file has, a line each, into an unlocked silo's list.

    Args:
        kit: The silo's, unlocked (`fedmodel.provision.unlock`).
        file: In UTF-8. Empty lines are not ids. Sensitive.
        table: The one that they withdraw from; None for all that the silo has.

    Raises:
        ConfigError: As `check_withdrawable` does, or when the file cannot be read, or has no id.
        DataError: When an id is not admitted by a table's form, with its line; or the list that is there does not open.
        OSError: When the list cannot be written, or a cache cannot be removed; do it again then.
    """
    persons, ids, own = check_withdrawable(kit, table), _ids_in(file), unlocked(kit)
    wanted = {name: _normal(name, person, ids) for name, person in persons.items()}
    more = {name: Withdrawn(person, frozenset(ids.values())) for name, person in persons.items()}
    tables, opener = read_law(kit).tables, opener_from_secret(own.age_secret)
    left_out = {name: source.person for name, source in tables.items() if name not in persons}
    with outbox(read_kit(kit), kit):  # an answer that is being made from those records is waited for
        handed = read_handed_out(kit, opener)
        add_withdrawn(kit, opener, own.recipient, more, left_out)
        _forget(kit / "cache")
    found = _looked_for(kit, persons, wanted)
    handed_out = tuple(name for name in persons if tables[name].held_out is not None or name in handed)
    return replace(found, left_out=tuple(left_out), handed_out=handed_out)


def _ids_in(file: Path) -> dict[int, str]:
    """Return the ids of a file by their lines."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{file}: the ids cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8; write one id a line, as text in UTF-8") from None
    found = {number: line for number, line in enumerate(lines, start=1) if line.strip()}
    if not found:
        raise ConfigError(f"{file}: has no id; write one id a line, as the table has it")
    return found


def _normal(table: str, person: PersonColumn, ids: Mapping[int, str]) -> dict[int, str]:
    """Return the normal forms of ids by their lines, under the form of one table."""
    found = {}
    for line, one in ids.items():
        try:
            found[line] = normal_id(one, person.form)
        except DataError as error:
            raise DataError(
                f'line {line}: the id {error} (form = "{person.form}" of table {table!r}); nothing was entered'
            ) from None
    return found


def _forget(cache: Path) -> None:
    """Remove what is kept of every table; it is made again from what may still be read."""
    kept = sorted(cache.glob("*.age")) if cache.is_dir() else []
    for path in kept:
        path.unlink(missing_ok=True)
    if kept:
        sync_folder(cache)


def _looked_for(kit: Path, persons: Mapping[str, PersonColumn], wanted: Mapping[str, Mapping[int, str]]) -> Withdrawal:
    """Say of which ids no record is there now: they may be mistyped, and nobody else would notice."""
    law, not_found, not_read = read_law(kit), {}, {}
    for name, person in persons.items():
        try:
            there = {normal for normal, _ in ids_in(law.tables[name].under(kit.resolve()), person)}
        except FedmodelError as error:
            not_read[name] = str(error)
        else:
            not_found[name] = [line for line, one in wanted[name].items() if one not in there]
    return Withdrawal(tuple(persons), {name: lines for name, lines in not_found.items() if lines}, not_read)
