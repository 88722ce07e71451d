"""Every way to change a ledger's file, that `verify` refuses each and names the first bad entry; and its command."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clients import policy
from clients.outbox import Release, outbox
from fedmodel import crypto
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import (
    Asked,
    Entry,
    Ledger,
    Scope,
    Standing,
    entries,
    merkle,
    origin_of,
    read_ledger,
    verify_ledger,
)
from fedmodel.ledger.entries import canonical, charge_body, genesis, reserve_body, scope_body, void_body
from fedmodel.ledger.heads import Head, sign_head
from fedmodel.ledger.tables import COLUMNS, PAGE_SIZE, SCHEMA, insert, prepare
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import provision, read_kit
from tests.ledgers import make_budget
from tests.scenarios.cli.test_main import Run

SILO, KEY, OTHER = "north", SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
LUNGS = Scope("lungs", "person", 3, 1e-3, 3.0, 5)
NAME, ORIGIN = SCOPE.name, origin_of(SILO)
PLAN = DpSgdEvent(40.0, 1.0, 1.0, 20, denominator=60)
KINDS = {"create", "reserve", "charge", "void", "override", "checkpoint", "audit"}


@dataclass(frozen=True)
class Written:
    """A ledger with every kind of entry, as several processes one after the other left it.

    Attributes:
        content: The file.
        notes: Signed heads of several sizes, the last of all entries.
        rows: The entries.
    """

    content: bytes
    notes: list[bytes]
    rows: tuple[Entry, ...]

    def put(self, folder: Path) -> Path:
        path = folder / "north.sqlite"
        path.write_bytes(self.content)
        return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    path, notes = folder / "north.sqlite", []

    def opened() -> Ledger:
        return Ledger(path, SILO, KEY, folder / "ledger.head")

    with opened() as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
        for number in (1, 2, 3, 4):
            ledger.charge("r1", number, 1 + number % 2, f"{number:064x}")
        notes.append(ledger.head())
    with opened() as ledger:
        ledger.void_charge("r1", 4, "nothing left the silo")
        make_budget(ledger, LUNGS)
        for number in range(5, 15):
            ledger.charge("r1", number, 1, f"{number:064x}")
        notes.append(ledger.checkpoint("the auditor"))
    with opened() as ledger:
        for failing in ("r1", "unknown"):  # what is refused leaves no trace in the file
            with pytest.raises(FedmodelError):
                ledger.charge(failing, 99, 99, "never")
        ledger.reserve(Asked(LUNGS, "q1", replace(PLAN, noise_multiplier=90.0, max_records=3), 4, partial=True))
        ledger.override(LUNGS.name, 4.0, "the board agreed", "A. Officer")
        ledger.audit({"subject": "silo.toml", "by": "A. Officer"})
    for number in range(1, 6):
        with opened() as ledger:
            ledger.charge("q1", number, 2, f"{100 + number:064x}")
            ledger.charge("r1", 20 + number, 1, f"{200 + number:064x}")
    with opened() as ledger:
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
        ledger.charge("r2", 1, 20, "f" * 64)
        ledger.release("q1", "the run ended")
        ledger.release("r1", "the run ended")
        ledger.void_charge("r2", 1, "nothing left the silo")
        ledger.checkpoint("the server")
        notes.append(ledger.head())
    rows = verify_ledger(path, KEY.public).entries
    return Written(path.read_bytes(), notes, rows)


@contextmanager
def refused(words: str, sequence: int | None = None) -> Iterator[None]:
    """Expect tampering to be found, in the file that is named, at this entry where one is to blame."""
    with pytest.raises(LedgerTampered, match=words) as caught:
        yield
    assert caught.value.exit_status == 4
    assert "north.sqlite" in str(caught.value)
    assert caught.value.sequence == sequence


def forged(folder: Path, rows: Sequence[Entry]) -> Path:
    """Write rows as this package would, had it been given them: layout, tree and schema are all in order."""
    path = folder / "north.sqlite"
    path.unlink(missing_ok=True)
    nodes: dict[tuple[int, int], bytes] = {}
    for number, row in enumerate(rows):
        made = merkle.new_nodes(number, merkle.leaf_hash(row.document), lambda level, place: nodes[level, place])
        nodes.update({(level, place): value for level, place, value in made})
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    prepare(connection)
    for row in rows:
        insert(connection, row, lambda level, place: nodes[level, place])
    connection.execute("COMMIT")
    connection.close()
    return path


def merkle_root(rows: Sequence[Entry]) -> bytes:
    nodes: dict[tuple[int, int], bytes] = {}
    for number, row in enumerate(rows):
        made = merkle.new_nodes(number, merkle.leaf_hash(row.document), lambda level, place: nodes[level, place])
        nodes.update({(level, place): value for level, place, value in made})
    return merkle.root(len(rows), lambda level, place: nodes[level, place])


def chained(rows: Sequence[Entry], key: SigningKey | None, start: int = 1) -> list[Entry]:
    """Chain rows again from one on; sign those with a key, or leave the signatures as they were."""
    kept = list(rows[: start - 1])
    for row in rows[start - 1 :]:
        linked = replace(row, previous=kept[-1].hash if kept else bytes(32))
        if row.kind == "checkpoint":
            linked = replace(linked, body=canonical({**row.content, "root": merkle_root(kept).hex()}))
        kept.append(linked if key is None else linked.sign(key))
    return kept


def edited(path: Path, *statements: str) -> None:
    """Edit a file as one who drops the triggers, and puts them back exactly as they were."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = [statement for statement in SCHEMA if statement.startswith("CREATE TRIGGER")]
    for trigger in triggers:
        connection.execute(f"DROP TRIGGER {trigger.split()[2]}")
    for statement in statements:
        connection.execute(statement)
    for trigger in triggers:
        connection.execute(trigger)
    assert [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOTNULL")] == list(SCHEMA)
    connection.close()


# Whole ledgers


def test_a_ledger_of_every_kind_of_entry_is_whole(written: Written, tmp_path: Path) -> None:
    found = verify_ledger(written.put(tmp_path), KEY.public, written.notes)
    assert {entry.kind for entry in found.entries} == KINDS
    assert len(found.entries) == found.head.size == 39
    assert found.heads == (7, 19, 39)
    assert found.unused_compared
    assert not found.key_is_its_own
    assert found.standing.silo == SILO
    assert found.head.origin == ORIGIN
    assert [entry.sequence for entry in found.entries] == list(range(1, 40))
    for entry, following in pairwise(found.entries):
        assert following.previous == entry.hash
    assert read_ledger(tmp_path / "north.sqlite").totals(NAME) == found.standing.totals(NAME)


def test_what_nobody_vouches_for_is_said(written: Written, tmp_path: Path) -> None:
    found = verify_ledger(written.put(tmp_path))
    assert found.key_is_its_own
    assert found.heads == ()


def test_the_same_rows_make_the_same_file(written: Written, tmp_path: Path) -> None:
    """The harness of this module adds nothing of its own that could be refused."""
    path = forged(tmp_path, written.rows)
    assert verify_ledger(path, KEY.public, written.notes).unused_compared
    assert path.read_bytes()[100:] == written.content[100:]


def test_a_ledger_of_hundreds_of_entries_and_large_bodies_is_whole(tmp_path: Path) -> None:
    """Pages split, and bodies overflow into pages of their own; the layout is still the one that its entries make."""
    path = tmp_path / "north.sqlite"
    for part in range(3):
        with Ledger(path, SILO, KEY, tmp_path / "head") as ledger:
            make_budget(ledger, SCOPE)
            ledger.reserve(Asked(SCOPE, "r", replace(PLAN, steps=300), 1))
            for number in range(100):
                ledger.charge("r", 100 * part + number, 1, f"{part}-{number}")
            ledger.audit({"subject": "x" * 10_000, "part": str(part)})
    found = verify_ledger(path, KEY.public, [(tmp_path / "head").read_bytes()])
    assert (found.head.size, found.unused_compared) == (306, True)


# Bits, pages and schema


def test_no_flipped_bit_anywhere_in_the_file_passes(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strides through the file, closer at the first page of every b-tree; each is refused, in no other way.

    Signatures are checked once for each message, key and signature, which changes no outcome.
    """
    monkeypatch.setattr(entries, "verify", lru_cache(maxsize=None)(crypto.verify))
    path, size = written.put(tmp_path), len(written.content)
    connection = sqlite3.connect(path)
    roots = [page for (page,) in connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")]
    connection.close()
    assert len(roots) == 5
    starts = [0, *((page - 1) * PAGE_SIZE for page in roots)]
    places = {start + place for start in starts for place in (*range(0, 100, 5), *range(0, PAGE_SIZE, 151))}
    places |= {*range(0, size, 97)}
    for place in sorted(places):
        changed = bytearray(written.content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(LedgerTampered) as caught:
            verify_ledger(path, KEY.public, written.notes)
        assert caught.value.exit_status == 4
        assert [found.name for found in tmp_path.iterdir()] == ["north.sqlite"]


def test_every_byte_of_the_header_counts(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "verify", lru_cache(maxsize=None)(crypto.verify))
    path = tmp_path / "north.sqlite"
    for bit in range(0, 800, 7):
        changed = bytearray(written.content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(LedgerTampered):
            verify_ledger(path, KEY.public, written.notes)


def test_a_changed_bit_in_unused_space_is_refused_without_any_head(written: Written, tmp_path: Path) -> None:
    """Where no entry, node or table lies: only the comparison of the whole file can see it."""
    zeros = [found.start() + 40 for found in re.finditer(rb"\0{80}", written.content[PAGE_SIZE:])][:12]
    path = tmp_path / "north.sqlite"
    assert zeros
    for place in zeros:
        changed = bytearray(written.content)
        changed[PAGE_SIZE + place] = 1
        path.write_bytes(changed)
        with refused(f"no entry is changed, but byte {PAGE_SIZE + place} of the file, which holds none, is"):
            verify_ledger(path, KEY.public)


def test_an_index_that_does_not_fit_its_table_is_refused_though_no_unused_byte_is_compared(
    written: Written, tmp_path: Path
) -> None:
    """An index answers what a charge asks; a row that it leaves out is a row that is not found."""
    path = written.put(tmp_path)
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries_of_run'").fetchone()
    connection.close()
    place = written.content.index(b"r2charge", (page - 1) * PAGE_SIZE, page * PAGE_SIZE)
    changed = bytearray(written.content)
    changed[place + 1] ^= 1
    path.write_bytes(changed)
    with refused("the file is damaged: .*index"):
        verify_ledger(path, KEY.public, written.notes, unused=False)
    path.write_bytes(written.content)
    assert not verify_ledger(path, KEY.public, unused=False).unused_compared


def test_a_cut_file_is_refused(written: Written, tmp_path: Path) -> None:
    path, size = tmp_path / "north.sqlite", len(written.content)
    for length in (
        0,
        1,
        99,
        100,
        512,
        *range(PAGE_SIZE, size, PAGE_SIZE),
        *range(PAGE_SIZE + 1000, size, PAGE_SIZE),
        size - 1,
    ):
        path.write_bytes(written.content[:length])
        with pytest.raises(LedgerTampered):
            verify_ledger(path, KEY.public, written.notes)


@pytest.mark.parametrize("log", [False, True], ids=["alone", "beside an empty write-ahead log"])
@pytest.mark.parametrize("more", [b"\0", b"x" * 100, bytes(PAGE_SIZE), b"x" * PAGE_SIZE * 3], ids=len)
def test_bytes_at_the_end_are_refused(written: Written, tmp_path: Path, more: bytes, log: bool) -> None:
    path = written.put(tmp_path)
    path.write_bytes(written.content + more)
    if log:
        (tmp_path / "north.sqlite-wal").touch()
    with refused("the file is longer than what is in it"):
        verify_ledger(path, KEY.public, written.notes)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE notes (x)",
        "CREATE INDEX more ON entries (kind)",
        "CREATE VIEW more AS SELECT * FROM entries",
        "CREATE TRIGGER more AFTER INSERT ON entries BEGIN SELECT 1; END",
        "DROP TRIGGER entries_follow",
        "DROP TRIGGER entries_never_update",
        "DROP TRIGGER entries_never_delete",
        "DROP TRIGGER nodes_never_update",
        "DROP TRIGGER nodes_never_delete",
        "DROP INDEX entries_of_run",
        "DROP INDEX entries_of_scope",
        "DROP TABLE nodes",
        "ANALYZE",
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "ALTER TABLE entries RENAME COLUMN time TO moment",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 1",
        "PRAGMA journal_mode = DELETE",
    ],
)
def test_another_schema_or_header_is_refused(written: Written, tmp_path: Path, statement: str) -> None:
    path = written.put(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement).fetchall()
    connection.close()
    with pytest.raises(LedgerTampered) as caught:
        verify_ledger(path, KEY.public, written.notes)
    assert caught.value.exit_status == 4


def test_a_check_taken_out_of_the_schema_is_refused(written: Written, tmp_path: Path) -> None:
    path = written.put(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (reserved <= cap)', '') WHERE name = 'entries'"
    )
    connection.close()
    with refused("its tables, indexes or triggers are not a ledger's"):
        verify_ledger(path, KEY.public)


def test_rows_that_a_view_tells_are_refused(written: Written, tmp_path: Path) -> None:
    path = written.put(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER entries_follow")
    connection.execute("ALTER TABLE entries RENAME TO shadows")
    connection.execute("CREATE VIEW entries AS SELECT * FROM shadows")
    connection.close()
    with refused("its tables, indexes or triggers are not a ledger's"):
        verify_ledger(path, KEY.public)


# Rows, edited by SQL


CHANGES = {
    "sequence": "1000", "time": "'2026-01-01T00:00:00.000+00:00'", "scope": f"'{LUNGS.name}'", "run": "'r2'",
    "round": "round + 1", "kind": "'audit'", "key": "'another'", "body": "replace(body, '\"taken\":', '\"taken\":1')",
    "cap": "cap + 1", "reserved": "reserved - 1", "spent": "spent - 1", "previous": "zeroblob(32)",
    "signature": "zeroblob(64)",
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", [5, 12])
def test_a_row_changed_by_sql_is_named(written: Written, tmp_path: Path, column: str, row: int) -> None:
    assert set(CHANGES) == set(COLUMNS)
    path = written.put(tmp_path)
    edited(path, f"UPDATE entries SET {column} = {CHANGES[column]} WHERE sequence = {row}")  # noqa: S608
    for known in ([], written.notes):
        with refused(f"entry {row}: ", row):
            verify_ledger(path, KEY.public, known)
    with refused(f"entry {row}: ", row):
        verify_ledger(path)


@pytest.mark.parametrize(("one", "other"), [(4, 5), (5, 12), (3, 20)])
def test_two_rows_that_trade_their_bodies_are_refused_at_the_first(
    written: Written, tmp_path: Path, one: int, other: int
) -> None:
    path = written.put(tmp_path)
    bodies = [f"(SELECT body FROM temp.kept WHERE sequence = {row})" for row in (other, one)]  # noqa: S608
    edited(
        path,
        "CREATE TEMP TABLE kept AS SELECT sequence, body FROM entries",
        *(
            f"UPDATE entries SET body = {body} WHERE sequence = {row}"  # noqa: S608
            for row, body in zip((one, other), bodies, strict=True)
        ),
    )
    with refused(f"entry {one}: ", one):
        verify_ledger(path, KEY.public)


def test_a_removed_row_is_named(written: Written, tmp_path: Path) -> None:
    for row in (1, 5, 38):
        path = written.put(tmp_path)
        edited(path, f"DELETE FROM entries WHERE sequence = {row}")  # noqa: S608
        with refused(f"entry {row}: ", row):
            verify_ledger(path, KEY.public)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_tail_cut_by_sql_is_refused_at_the_first_missing_entry(written: Written, tmp_path: Path, cut: int) -> None:
    path, left = written.put(tmp_path), 39 - cut
    edited(
        path,
        f"DELETE FROM entries WHERE sequence > {left}",  # noqa: S608
        f"DELETE FROM nodes WHERE ((position + 1) << level) > {left}",  # noqa: S608
    )
    with refused(f"a signed head has 39, and {left} are left", left + 1):
        verify_ledger(path, KEY.public, written.notes)


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
def test_a_tail_that_never_was_is_noticed_by_a_head_and_by_nothing_else(
    written: Written, tmp_path: Path, cut: int
) -> None:
    left = 39 - cut
    path = forged(tmp_path, written.rows[:left])
    found = verify_ledger(path, KEY.public)
    assert (found.head.size, found.heads, found.unused_compared) == (left, (), True)
    assert verify_ledger(path, KEY.public, written.notes[:2]).heads == (7, 19)
    with refused(f"its newest entries are gone: a signed head has 39, and {left} are left", left + 1):
        verify_ledger(path, KEY.public, written.notes)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND position = 0", 1),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND position = 11", 12),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 2 AND position = 1", 8),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 5", 32),
        ("DELETE FROM nodes WHERE level = 3 AND position = 1", 16),
        ("DELETE FROM nodes", 1),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND position IN (11, 5)", 6),
        ("INSERT INTO nodes VALUES (0, 39, zeroblob(32))", 39),
        ("INSERT INTO nodes VALUES (60, 0, zeroblob(32))", 39),
        ("INSERT INTO nodes VALUES (-1, -1, zeroblob(32))", 39),
    ],
)
def test_a_node_that_does_not_follow_is_refused_at_the_entry_that_completes_it(
    written: Written, tmp_path: Path, statement: str, row: int
) -> None:
    path = written.put(tmp_path)
    edited(path, statement)
    with refused("a node of the Merkle tree", row):
        verify_ledger(path, KEY.public)


def test_a_signature_that_is_text_is_refused(written: Written, tmp_path: Path) -> None:
    """As its one bit of type and 64 letters make it: no statement could, since the table is STRICT."""
    content, signature = bytearray(written.content), written.rows[4].signature
    place = content.find(signature)
    content[place : place + 64] = b"A" * 64
    before_the_last_hash = place - 32  # in which the two bytes of the type could be by chance
    content[content.rfind(b"\x81\x0c", 0, before_the_last_hash) + 1] = 0x0D
    path = tmp_path / "north.sqlite"
    path.write_bytes(content)
    with refused("entry 5: ", 5):
        verify_ledger(path, KEY.public)


# Rows, forged with everything that follows from them


CHANGED: list[dict[str, Any]] = [
    {"time": "2030-01-01T00:00:00.000+00:00"},
    {"round": 99},
    {"key": "another"},
    {"body": charge_body(replace(PLAN, steps=2), 4)},
    {"body": "{}"},
    {"spent": 1},
    {"run": None},
]


@pytest.mark.parametrize("changed", CHANGED, ids=lambda changed: next(iter(changed)))
def test_a_row_changed_with_the_chain_recomputed_and_no_key_is_named(
    written: Written, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Chain, tree and layout are as they should be; only whoever has the key could sign the row."""
    rows = list(written.rows)
    rows[4] = replace(rows[4], **changed)
    path = forged(tmp_path, chained(rows, None, 5))
    with refused("entry 5: ", 5):
        verify_ledger(path, KEY.public)
    with refused("entry 5: ", 5):
        verify_ledger(path)


def test_a_row_that_is_all_right_but_for_its_signature_is_named(written: Written, tmp_path: Path) -> None:
    """A later round number breaks no rule, so nothing else could refuse it."""
    rows = list(written.rows)
    rows[4] = replace(rows[4], round=99)
    path = forged(tmp_path, chained(rows, KEY, 5))
    assert verify_ledger(path, KEY.public).head.size == 39
    path = forged(tmp_path, chained(rows, OTHER, 5))
    with refused("entry 5: its signature is not the silo's", 5):
        verify_ledger(path, KEY.public)
    with refused("entry 5: its signature is not the silo's", 5):
        verify_ledger(path)
    resigned = [*written.rows[:38], written.rows[38].sign(OTHER)]
    with refused("entry 39: its signature is not the silo's", 39):
        verify_ledger(forged(tmp_path, resigned), KEY.public)


def test_a_history_rewritten_with_the_key_is_refused_by_every_head_of_it(written: Written, tmp_path: Path) -> None:
    rows = list(written.rows)
    rows[4] = replace(rows[4], round=99)
    path = forged(tmp_path, chained(rows, KEY, 5))
    for note, size in zip(written.notes, (7, 19, 39), strict=True):
        with refused(f"its first {size} entries are not those that a signed head is of"):
            verify_ledger(path, KEY.public, [note])


def test_a_chain_that_is_signed_and_broken_is_refused(written: Written, tmp_path: Path) -> None:
    rows = list(written.rows)
    rows[4] = replace(rows[4], previous=bytes(32)).sign(KEY)
    path = forged(tmp_path, [*rows[:5], *chained(rows, KEY, 1)[5:]])
    with refused("entry 5: it is not chained to the entry before it", 5):
        verify_ledger(path, KEY.public)
    rows = list(written.rows)
    rows[0] = replace(rows[0], previous=b"x" * 32).sign(KEY)
    with refused("entry 1: it is not chained", 1):
        verify_ledger(forged(tmp_path, chained(rows, KEY, 2)), KEY.public)


def test_a_ledger_written_anew_with_another_key_is_refused(written: Written, tmp_path: Path) -> None:
    rows = list(written.rows)
    path = forged(tmp_path, chained(rows, OTHER))
    for public in (KEY.public, None):
        with refused("entry 1: its signature is not the silo's", 1):
            verify_ledger(path, public)
    rows[0] = replace(rows[0], body=genesis(SILO, OTHER.public, bytes(16)))
    path = forged(tmp_path, chained(rows, OTHER))
    with refused("entry 1: its signature is not the silo's", 1):
        verify_ledger(path, KEY.public)
    assert verify_ledger(path).key_is_its_own  # whole, by a key that nobody vouches for
    with refused("a head has one signature by the key"):
        verify_ledger(path, None, written.notes)


def test_a_ledger_that_names_another_key_than_it_is_signed_with_is_refused(written: Written, tmp_path: Path) -> None:
    rows = list(written.rows)
    rows[0] = replace(rows[0], body=genesis(SILO, OTHER.public, bytes(16)))
    path = forged(tmp_path, chained(rows, KEY))
    with refused("it names another key than the silo's", 1):
        verify_ledger(path, KEY.public)
    with refused("entry 1: its signature is not the silo's", 1):
        verify_ledger(path)


def test_another_ledger_in_its_place_is_refused(written: Written, tmp_path: Path) -> None:
    path, south = tmp_path / "north.sqlite", SigningKey(bytes([9]) * 32)
    with Ledger(path, "south", south, tmp_path / "south.head") as ledger:
        make_budget(ledger, SCOPE)
    with refused("entry 1: its signature is not the silo's", 1):
        verify_ledger(path, KEY.public)
    assert verify_ledger(path, south.public).standing.silo == "south"
    path.unlink()
    with Ledger(path, SILO, KEY, tmp_path / "again.head") as ledger:  # the same silo's, made anew
        for number in range(60):
            ledger.audit({"subject": str(number)})
    assert verify_ledger(path, KEY.public).head.size == 61
    with refused("are not those that a signed head is of"):
        verify_ledger(path, KEY.public, written.notes)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"nonsense\n",
        sign_head(Head(ORIGIN, 5, bytes(32)), OTHER),
        sign_head(Head(origin_of("south"), 5, bytes(32)), KEY),
        sign_head(Head(ORIGIN, 5, bytes(32)), KEY),
    ],
    ids=["empty", "nonsense", "another key", "another silo", "another root"],
)
def test_a_head_of_anything_else_is_refused(written: Written, tmp_path: Path, note: bytes) -> None:
    path = written.put(tmp_path)
    with pytest.raises(LedgerTampered, match=r"north\.sqlite"):
        verify_ledger(path, KEY.public, [*written.notes, note])


def test_a_ledger_signed_by_a_key_that_anybody_could_sign_for_is_refused(tmp_path: Path) -> None:
    """The neutral point as key and as commitment, with a response of zero, verifies whatever is signed."""
    point = b"\x01" + bytes(31)
    first = Entry(
        1, "2026-01-01T00:00:00.000+00:00", None, None, None, "create", None, genesis(SILO, point, bytes(16)), 0, 0, 0,
        bytes(32), point + bytes(32),
    )  # fmt: skip
    with pytest.raises(LedgerTampered):
        verify_ledger(forged(tmp_path, [first]))


@pytest.mark.parametrize(
    "silo", ["north hospital", "a+b", "ä", "x" * 300, 7, None, ["north"]], ids=lambda silo: repr(silo)[:20]
)
def test_a_ledger_of_a_silo_that_could_not_be_named_is_refused(tmp_path: Path, silo: object) -> None:
    body = canonical({"silo": silo, "key": KEY.public.hex(), "nonce": "00" * 16, "version": 1})
    first = Entry(
        1, "2026-01-01T00:00:00.000+00:00", None, None, None, "create", None, body, 0, 0, 0, bytes(32)
    ).sign(KEY)  # fmt: skip
    with pytest.raises(LedgerTampered):
        verify_ledger(forged(tmp_path, [first]))


# Entries that the silo itself signed, against the rules


PERSON = replace(PLAN, max_records=3)


def base() -> list[Entry]:
    """Return 9 entries: two scopes; r1 with two charges, q1 closed, r2 with none."""
    cost = SCOPE.cost(PLAN)
    persons = replace(PERSON, noise_multiplier=90.0)
    rows: list[Entry] = []
    append(rows, "create", genesis(SILO, KEY.public, bytes(16)))
    append(rows, "create", scope_body(SCOPE), NAME)
    append(rows, "create", scope_body(LUNGS), LUNGS.name)
    append(rows, "reserve", reserve_body(PLAN, "", "filter", cost), NAME, "r1")
    append(rows, "charge", charge_body(replace(PLAN, steps=5), 5), NAME, "r1", 1, "k1")
    append(rows, "charge", charge_body(replace(PLAN, steps=5), 10), NAME, "r1", 2, "k2")
    append(rows, "reserve", reserve_body(persons, "", "filter", LUNGS.cost(persons)), LUNGS.name, "q1")
    append(rows, "void", void_body(7, "ended", 0), LUNGS.name, "q1")
    append(rows, "reserve", reserve_body(PLAN, "", "filter", cost), NAME, "r2")
    return rows


def append(
    rows: list[Entry], kind: Any, body: str, scope: str | None = None, run: str | None = None,
    number: int | None = None, key: str | None = None, **changed: Any,
) -> None:  # fmt: skip
    """Append an entry with the totals that follow if the rules take it, else with those of the scope's last entry."""
    standing = Standing()
    for row in rows:
        standing.apply(row)
    totals = next(((row.cap, row.reserved, row.spent) for row in reversed(rows) if row.scope == scope), (0, 0, 0))
    time, previous = (rows[-1].time, rows[-1].hash) if rows else ("2026-01-01T00:00:00.000+00:00", bytes(32))
    entry = Entry(len(rows) + 1, time, scope, run, number, kind, key, body, *totals, previous)
    try:
        standing.apply(entry.sign(KEY))
        totals = (0, 0, 0) if scope is None else standing.totals(scope)
    except Exception:  # noqa: S110 - what rules refuse, and how, is for the tests to see
        pass
    entry = replace(entry, cap=totals[0], reserved=totals[1], spent=totals[2])
    rows.append(replace(entry, **changed).sign(KEY))


def part(steps: int, taken: int, **changed: Any) -> str:
    return charge_body(replace(PLAN, steps=steps, **changed), taken)


def scoped(**changed: Any) -> str:
    return canonical({**asdict(replace(SCOPE, data="livers")), **changed})


def event(**changed: Any) -> str:
    return canonical({"event": {**asdict(replace(PLAN, steps=1)), **changed}, "taken": 11})


def reserve(plan: DpSgdEvent, admitted: Any = "filter", more: int = 0, scope: Scope = SCOPE) -> str:
    return reserve_body(plan, "", admitted, scope.cost(plan) + more)


HUGE = "1" + "0" * 400
LIVERS = "livers/record"


def test_entries_within_the_rules_are_taken(tmp_path: Path) -> None:
    """The same harness, so that each refusal below is for its own reason."""
    rows = base()
    append(rows, "charge", part(10, 20), NAME, "r1", 3, "k3")
    append(rows, "void", void_body(10, "nothing left", 10), NAME, "r1", 3)
    append(rows, "reserve", reserve(PLAN, more=1000), NAME, "r3")  # of a looser accountant
    append(rows, "reserve", reserve(PLAN, more=-1), NAME, "r4")
    append(rows, "void", void_body(4, "ended", 10), NAME, "r1")
    append(
        rows,
        "override",
        canonical({"by": "x", "epsilon": 4, "reason": "y"}),
        NAME,
        time="2020-01-01T00:00:00.000+00:00",
    )
    append(rows, "create", scoped(), LIVERS, time="2026-01-01T00:00:00.000+00:00")
    root = merkle_root(rows)
    append(rows, "checkpoint", canonical({"root": root.hex(), "size": 16, "to": "x"}))
    append(rows, "audit", canonical({"subject": 1, "and": ["more", {"of": None}]}))
    assert verify_ledger(forged(tmp_path, rows), KEY.public).head.size == 18


AGAINST: dict[str, tuple[Any, ...]] = {
    "an unknown mechanism": ("charge", event(mechanism="pate"), NAME, "r1", 3, "k3"),
    "a field too many in an event": ("charge", event(more=1), NAME, "r1", 3, "k3"),
    "no event": ("charge", '{"event":null,"taken":10}', NAME, "r1", 3, "k3"),
    "a charge of more than is reserved": ("charge", part(11, 21), NAME, "r1", 3, "k3"),
    "a charge of other noise": ("charge", part(1, 11, noise_multiplier=41.0), NAME, "r1", 3, "k3"),
    "a charge of another rate": ("charge", part(1, 11, sample_rate=0.5, realised_sample_rate=0.5), NAME, "r1", 3, "k3"),
    "a charge of seeded noise": ("charge", part(1, 11, noise_source="seeded-unsafe"), NAME, "r1", 3, "k3"),
    "a charge of a run that was released": ("charge", charge_body(replace(PERSON, noise_multiplier=90.0, steps=1), 1),
                                            LUNGS.name, "q1", 1, "k3"),
    "a charge of a run never reserved": ("charge", part(1, 1), NAME, "r9", 1, "k3"),
    "a charge of no run": ("charge", part(1, 1), NAME, None, 1, "k3"),
    "a charge of a run of another scope": ("charge", part(1, 11), LUNGS.name, "r1", 3, "k3"),
    "a charge of no scope": ("charge", part(1, 11), None, "r1", 3, "k3"),
    "a charge of no round": ("charge", part(1, 11), NAME, "r1", None, "k3"),
    "a charge without a key": ("charge", part(1, 11), NAME, "r1", 3, None),
    "a charge that says fewer steps are taken": ("charge", part(1, 10), NAME, "r1", 3, "k3"),
    "a charge that says nothing of steps": ("charge", canonical({"event": asdict(replace(PLAN, steps=1))}), NAME, "r1",
                                            3, "k3"),
    "a charge of a scope that was never made": ("charge", part(1, 11), "nothing/record", "r1", 3, "k3"),
    "a plan over the cap": ("reserve", reserve(replace(PLAN, noise_multiplier=3.0)), NAME, "r3"),
    "a second plan by its own epsilon": ("reserve", reserve(replace(PLAN, noise_multiplier=6.58, steps=40), "plan"),
                                         NAME, "r3"),
    "a plan that would be by the filter": ("reserve", reserve(PLAN, "plan"), NAME, "r3"),
    "a first plan over its own epsilon": ("reserve", reserve(replace(PERSON, noise_multiplier=4.0), "plan", 0, LUNGS),
                                          LUNGS.name, "q2"),
    "an unknown admission": ("reserve", reserve(PLAN, "grace"), NAME, "r3"),
    "a cost too low": ("reserve", reserve(PLAN, more=-2), NAME, "r3"),
    "a cost in words": ("reserve", reserve(PLAN).replace('"cost":31250', '"cost":"31250"'), NAME, "r3"),
    "a cost that is a fraction": ("reserve", reserve(PLAN).replace('"cost":31250', '"cost":31250.5'), NAME, "r3"),
    "a cost that is a float": ("reserve", reserve(PLAN).replace('"cost":31250', '"cost":31250.0'), NAME, "r3"),
    "a cost over the cap": ("reserve", reserve(PLAN, more=SCOPE.cap), NAME, "r3"),
    "a cost of nothing": ("reserve", reserve_body(PLAN, "", "filter", 0), NAME, "r3"),
    "a negative cost": ("reserve", reserve_body(PLAN, "", "filter", -SCOPE.cost(PLAN)), NAME, "r3"),
    "an infinite cost": ("reserve", reserve(PLAN).replace(str(SCOPE.cost(PLAN)), "1e999"), NAME, "r3"),
    "a run reserved again": ("reserve", reserve(PLAN), NAME, "r1"),
    "a released run reserved again": ("reserve", reserve(replace(PERSON, noise_multiplier=90.0), scope=LUNGS),
                                      LUNGS.name, "q1"),
    "a plan of another unit": ("reserve", reserve(PERSON), NAME, "r3"),
    "a plan of no run": ("reserve", reserve(PLAN), NAME, None),
    "a void of no entry": ("void", void_body(99, "x", 10), NAME, "r1"),
    "a void of an older charge": ("void", void_body(5, "x", 5), NAME, "r1", 1),
    "a void of a charge of another run": ("void", void_body(6, "x", 0), NAME, "r2"),
    "a void of a run's newest charge that is not the ledger's": ("void", void_body(5, "x", 0), NAME, "r1", 1),
    "a void of a released run": ("void", void_body(7, "x", 0), LUNGS.name, "q1"),
    "a void that says other steps": ("void", void_body(6, "x", 6), NAME, "r1", 2),
    "a void without a reason": ("void", '{"of":6,"taken":5}', NAME, "r1", 2),
    "a void of a list": ("void", '{"of":[6],"reason":"x","taken":5}', NAME, "r1", 2),
    "an override under what is held": ("override", canonical({"by": "x", "epsilon": 1.15, "reason": "y"}), NAME),
    "an override by nobody": ("override", canonical({"epsilon": 4.0, "reason": "y"}), NAME),
    "an override to nothing": ("override", canonical({"by": "x", "epsilon": 0.0, "reason": "y"}), NAME),
    "an override past all floats": ("override", f'{{"by":"x","epsilon":{HUGE},"reason":"y"}}', NAME),
    "an override in words": ("override", canonical({"by": "x", "epsilon": "nan", "reason": "y"}), NAME),
    "an override to infinity in words": ("override", canonical({"by": "x", "epsilon": "inf", "reason": "y"}), NAME),
    "an override of a list": ("override", canonical({"by": "x", "epsilon": [4], "reason": "y"}), NAME),
    "an override of no scope": ("override", canonical({"by": "x", "epsilon": 4.0, "reason": "y"}), None),
    "a scope made again": ("create", scope_body(SCOPE), NAME),
    "a second scope of a data set": ("create", scoped(data="hearts", unit="person"), "hearts/person-1"),
    "a scope under another name": ("create", scoped(), "kidneys/record"),
    "a scope of another adjacency": ("create", scoped(adjacency="replace-one"), LIVERS),
    "a scope with a field too many": ("create", scoped(more=1), LIVERS),
    "a scope of an unknown unit": ("create", scoped(unit="galaxy"), "livers/galaxy-1"),
    "a scope of no records": ("create", scoped(max_records=0), LIVERS),
    "a scope of records in words": ("create", scoped(max_records="1"), LIVERS),
    "a scope of epsilon in words": ("create", scoped(epsilon="3"), LIVERS),
    "a scope of epsilon past all floats": ("create", scoped().replace('"epsilon":3.0', f'"epsilon":{HUGE}'), LIVERS),
    "a scope of epsilon 0": ("create", scoped(epsilon=0), LIVERS),
    "a scope of delta in words": ("create", scoped(delta="0.001"), LIVERS),
    "a scope of delta 1": ("create", scoped(delta=1), LIVERS),
    "a scope of a fractional order": ("create", scoped(order=5.5), LIVERS),
    "a scope of order 1": ("create", scoped(order=1), LIVERS),
    "a scope of a list of orders": ("create", scoped(order=[5]), LIVERS),
    "a scope of a list of data": ("create", scoped(data=["livers"]), "['livers']/record"),
    "a second beginning": ("create", genesis(SILO, KEY.public, bytes(16))),
    "a checkpoint of another size": ("checkpoint", canonical({"root": "00" * 32, "size": 8, "to": "x"})),
    "a checkpoint of another root": ("checkpoint", canonical({"root": "00" * 32, "size": 9, "to": "x"})),
    "a checkpoint to nobody": ("checkpoint", canonical({"root": "00" * 32, "size": 9})),
    "an audit of nothing": ("audit", "{}"),
    "no JSON": ("audit", "subject"),
    "no object": ("audit", '["subject"]'),
    "not canonical": ("audit", '{"subject": 1}'),
    "a key twice": ("audit", '{"subject":1,"subject":2}'),
    "not a number": ("audit", '{"subject":NaN}'),
    "infinity": ("audit", '{"subject":1e999}'),
    "a number of too many digits": ("audit", f'{{"subject":{"9" * 5000}}}'),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAINST)
def test_an_entry_against_the_rules_is_refused_though_the_silo_signed_it(tmp_path: Path, name: str) -> None:
    rows = base()
    append(rows, *AGAINST[name])
    path = forged(tmp_path, rows)
    with refused("entry 10: ", 10):
        verify_ledger(path, KEY.public)
    if name != "a checkpoint of another root":  # a reading without signatures or tree leaves that to `verify`
        with pytest.raises(LedgerTampered):
            read_ledger(path)


@pytest.mark.parametrize(
    ("kind", "body", "changed"),
    [
        ("audit", '{"subject":1}', {"time": "2025-12-31T23:59:59.999+00:00"}),
        ("charge", part(1, 11), {"spent": 1}),
        ("charge", part(1, 11), {"spent": 0}),
        ("charge", part(1, 11), {"reserved": SCOPE.cost(PLAN)}),
        ("charge", part(1, 11), {"cap": SCOPE.cap + 1}),
        ("charge", part(1, 11), {"cap": SCOPE.cap - 1}),
        ("audit", '{"subject":1}', {"cap": 1}),
    ],
)
def test_an_entry_of_an_earlier_time_or_of_totals_that_do_not_follow_is_refused(
    tmp_path: Path, kind: str, body: str, changed: dict[str, Any]
) -> None:
    rows = base()
    about: tuple[Any, ...] = (NAME, "r1", 3, "k3") if kind == "charge" else ()
    append(rows, kind, body, *about, **changed)
    path = forged(tmp_path, rows)
    with refused("older than the entry before|its totals are", 10):
        verify_ledger(path, KEY.public)
    with refused("older than the entry before|its totals are", 10):
        read_ledger(path)


def test_totals_off_by_a_millionth_are_refused(tmp_path: Path) -> None:
    for column in ("reserved", "spent"):
        rows = base()
        append(rows, "charge", part(1, 11), NAME, "r1", 3, "k3")
        rows[-1] = replace(rows[-1], **{column: getattr(rows[-1], column) - 1}).sign(KEY)
        with refused("entry 10: its totals are", 10):
            verify_ledger(forged(tmp_path, rows), KEY.public)


def test_after_a_budget_was_taken_whole_nothing_is_reserved_or_given_back(tmp_path: Path) -> None:
    whole = replace(PLAN, noise_multiplier=6.58, steps=40)
    rows = base()[:3]
    over = [*rows]
    append(over, "reserve", reserve(replace(whole, noise_multiplier=6.55), "plan"), NAME, "r1")  # epsilon 3.006
    with refused("entry 4: ", 4):
        verify_ledger(forged(tmp_path, over), KEY.public)
    append(rows, "reserve", reserve(whole, "plan"), NAME, "r1")
    assert verify_ledger(forged(tmp_path, rows), KEY.public).standing.totals(NAME) == (SCOPE.cap, SCOPE.cap, 0)
    small = replace(PLAN, noise_multiplier=1e6, steps=1)
    charged = [*rows]
    append(charged, "charge", charge_body(replace(whole, steps=1), 1), NAME, "r1", 1, "k1")
    append(charged, "void", void_body(4, "ended", 1), NAME, "r1")
    with refused("entry 6: .*is not given back", 6):
        verify_ledger(forged(tmp_path, charged), KEY.public)
    for against in (
        ("reserve", reserve(small), NAME, "r2"),
        ("reserve", reserve(small, "plan"), NAME, "r2"),
        ("override", canonical({"by": "x", "epsilon": 2.9, "reason": "y"}), NAME),
    ):
        more = [*rows]
        append(more, *against)
        with refused("entry 5: ", 5):
            verify_ledger(forged(tmp_path, more), KEY.public)


def test_a_ledger_begins_with_whose_it_is(tmp_path: Path) -> None:
    for body in (
        canonical({"silo": SILO, "key": KEY.public.hex(), "nonce": "00", "version": 2}),
        canonical({"silo": SILO, "key": KEY.public.hex(), "version": 1}),
        canonical({"silo": SILO, "key": 7, "nonce": "00", "version": 1}),
        canonical({"silo": SILO, "key": "xyz", "nonce": "00", "version": 1}),
        canonical({"silo": SILO, "key": "00", "nonce": "00", "version": 1}),
    ):
        rows: list[Entry] = []
        append(rows, "create", body)
        with refused("entry 1: ", 1):
            verify_ledger(forged(tmp_path, rows), None)
    rows = []
    append(rows, "create", scope_body(SCOPE), NAME)
    with refused("entry 1: a ledger begins with whose it is", 1):
        verify_ledger(forged(tmp_path, rows), KEY.public)
    with refused("holds no entry, so it is no ledger", 1):
        verify_ledger(forged(tmp_path, []), KEY.public)
    with pytest.raises(LedgerError, match="holds no entry"):
        read_ledger(tmp_path / "north.sqlite")


def test_an_idempotency_key_is_of_one_entry() -> None:
    """A file refuses it by its index, so that only rows that never lay in one can have it twice."""
    standing, rows = Standing(), base()
    append(rows, "charge", part(1, 11), NAME, "r1", 3, "k2")
    for row in rows[:9]:
        standing.apply(row)
    with pytest.raises(LedgerTampered, match="entry 10: another entry has its idempotency key"):
        standing.apply(rows[9])


def test_a_body_nested_to_any_depth_is_taken_or_refused() -> None:
    """Reading and writing JSON give up at different depths."""
    rows = base()
    for depth in range(300, 1100):
        standing = Standing()
        for row in rows[:1]:
            standing.apply(row)
        body = '{"subject":' + "[" * depth + "]" * depth + "}"
        entry = replace(rows[1], scope=None, kind="audit", body=body, cap=0).sign(KEY)
        try:
            standing.apply(entry)
        except LedgerTampered as error:
            assert error.sequence == 2  # noqa: PT017 - it may be taken as well


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny: Scenario) -> Run:
    """The command in a run's folder, whose silo north has charged three of the rounds that it reserved."""
    provision(tiny, tmp_path / "r")
    (tmp_path / "r" / "ledgers").mkdir()
    kit = read_kit(tmp_path / "r" / "silos" / "north")
    (data,) = kit.law.budgets
    scope = policy.budget_scope(kit.law, data)
    plan = DpSgdEvent(60.0, 1.0, 0.5, 4, denominator=10)
    path = tmp_path / "r" / "ledgers" / "north.sqlite"
    with Ledger(path, "north", kit.identity, tmp_path / "r" / "silos" / "north" / "ledger.head") as ledger:
        make_budget(ledger, scope)
        ledger.reserve(Asked(scope, "7", plan, 1))
        for number in (1, 2, 3):
            ledger.charge("7", number, 1, f"{number:064x}")
    return Run(monkeypatch, capsys, tmp_path)


LEDGER = "r/ledgers/north.sqlite"


def told(run: Run) -> str:
    """Return the one line of an error, with nothing beside it."""
    assert run.out == ""
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
    return run.err.removeprefix("error: ")


def tamper(run: Run) -> None:
    edited(run.folder / LEDGER, "UPDATE entries SET round = 9 WHERE sequence = 5")


def test_a_whole_ledger_verifies(run: Run) -> None:
    assert run("ledger", "verify", LEDGER) == 0
    assert (
        "6 entries of silo north, all as they were written; extends 1 signed head, the newest of 6 entries" in run.out
    )
    assert "NO" not in run.out
    assert run.err == ""
    found = run.json("ledger", "verify", LEDGER)
    kit = read_kit(run.folder / "r" / "silos" / "north")
    assert found["valid"] is True
    assert (found["silo"], found["entries"], found["heads"]) == ("north", 6, [6])
    assert found["key"] == kit.identity.public.hex()
    assert found["key_from"] == "the roster or the command line"
    assert found["unused_bytes_compared"] is True


def test_a_copy_is_the_ledger_byte_for_byte_whatever_its_log_still_holds(run: Run) -> None:
    with closing(sqlite3.connect(run.folder / LEDGER)) as appending:  # as its silo has it open
        appending.execute("SELECT count(*) FROM entries").fetchall()
        assert run("ledger", "copy", LEDGER, "copied.sqlite") == 0
    assert run.out == "copied.sqlite: a copy of 6 entries, verified\n"
    assert (run.folder / "copied.sqlite").read_bytes() == (run.folder / LEDGER).read_bytes()
    key = read_kit(run.folder / "r" / "silos" / "north").identity.public.hex()
    assert run("ledger", "verify", "copied.sqlite", "--key", key) == 0


def test_a_copy_replaces_nothing_and_is_of_no_bad_ledger(run: Run) -> None:
    before = (run.folder / LEDGER).read_bytes()
    assert run("ledger", "copy", LEDGER, LEDGER) == 2
    assert "is there already, and no file is replaced by a copy" in told(run)
    assert (run.folder / LEDGER).read_bytes() == before
    tamper(run)
    assert run("ledger", "copy", LEDGER, "copied.sqlite") == 4
    assert "its signature is not the silo's" in told(run)
    assert not (run.folder / "copied.sqlite").exists()


def test_a_bad_ledger_is_refused_in_one_line(run: Run) -> None:
    tamper(run)
    assert run("ledger", "verify", LEDGER) == 4
    assert "r/ledgers/north.sqlite: entry 5: its signature is not the silo's" in told(run)
    assert run("ledger", "verify", LEDGER, "--json") == 4
    found = json.loads(run.out)
    assert set(found) == {"valid", "first_bad", "reason"}
    assert (found["valid"], found["first_bad"]) == (False, 5)
    assert "its signature is not the silo's" in found["reason"]
    assert run.err.count("\n") == 1
    before = (run.folder / LEDGER).read_bytes()
    why = ("--reason", "x")
    for verb in (
        ("ledger", "export", LEDGER),
        ("budget", "show", LEDGER),
        ("ledger", "checkpoint", LEDGER, "--to", "x"),
        ("ledger", "void", LEDGER, "7", *why),
        ("ledger", "override", LEDGER, "synthetic/record", "--epsilon", "9", "--by", "x", *why),
    ):
        assert run(*verb) == 4
        assert "north.sqlite" in told(run)
    assert (run.folder / LEDGER).read_bytes() == before


def test_what_is_written_is_written_to_a_whole_ledger_alone(run: Run) -> None:
    """A row that the deed does not rest on, nor the order of the others: the totals that a person reads."""
    kit = read_kit(run.folder / "r" / "silos" / "north")
    rows = list(verify_ledger(run.folder / LEDGER).entries)
    rows[4] = replace(rows[4], spent=0)
    (run.folder / "r" / "silos" / "north" / "ledger.head").unlink()
    path = forged(run.folder, chained(rows, kit.identity, 5))
    nodes = merkle_root(chained(rows, kit.identity, 5))
    (run.folder / LEDGER).write_bytes(path.read_bytes())
    note = sign_head(Head(origin_of("north"), 6, nodes), kit.identity)
    (run.folder / "r" / "silos" / "north" / "ledger.head").write_bytes(note)
    assert run("ledger", "checkpoint", LEDGER, "--to", "x") == 4
    assert "entry 5: its totals are" in told(run)


def test_a_cut_ledger_is_refused_by_the_heads_that_lie_beside_it(run: Run) -> None:
    path = run.folder / LEDGER
    backup = path.read_bytes()
    assert run("ledger", "checkpoint", LEDGER, "--to", "the auditor") == 0
    path.write_bytes(backup)
    assert run("ledger", "verify", LEDGER, "--json") == 4
    assert json.loads(run.out)["first_bad"] == 7
    assert run("ledger", "override", LEDGER, "x", "--epsilon", "9", "--reason", "y", "--by", "z") == 4
    assert "newer ones are gone" in told(run)
    own = run.folder / "r" / "silos" / "north" / "ledger.head"
    theirs = run.folder / "r" / "server" / "heads" / "north"
    theirs.parent.mkdir(exist_ok=True)
    own.rename(theirs)
    assert run("ledger", "verify", LEDGER) == 4
    assert "a signed head has 7, and 6 are left" in told(run)
    theirs.rename(run.folder / "kept")
    assert run("ledger", "verify", LEDGER) == 0
    assert "NO signed head is known" in run.out
    assert run("ledger", "verify", LEDGER, "--head", "kept") == 4
    assert "a signed head has 7, and 6 are left" in told(run)


def test_a_key_from_elsewhere_is_what_vouches(run: Run) -> None:
    key = read_kit(run.folder / "r" / "silos" / "north").identity.public.hex()
    (run.folder / "alone").mkdir()
    (run.folder / "alone" / "north.sqlite").write_bytes((run.folder / LEDGER).read_bytes())
    assert run("ledger", "verify", "alone/north.sqlite") == 0
    assert "NOBODY ELSE vouches for its key" in run.out
    assert run.json("ledger", "verify", "alone/north.sqlite")["key_from"] == "the ledger itself"
    assert run("ledger", "verify", "alone/north.sqlite", "--key", key) == 0
    assert "NOBODY" not in run.out
    assert run("ledger", "verify", "alone/north.sqlite", "--key", OTHER.public.hex()) == 4
    assert "entry 1: its signature is not the silo's" in told(run)


@pytest.mark.parametrize(
    "arguments",
    [["--key", "nonsense"], ["--key", "ab"], ["--key", ""], ["--head", "nowhere"], ["--head", "r"]],
    ids=" ".join,
)
def test_a_key_or_head_that_cannot_be_read_is_a_mistake_and_no_tampering(run: Run, arguments: list[str]) -> None:
    assert run("ledger", "verify", LEDGER, *arguments) == 2
    assert "the key is hexadecimal and a head is a file" in told(run)


def test_a_checkpoint_is_printed_entered_and_extended(run: Run) -> None:
    note = run.json("ledger", "checkpoint", LEDGER, "--to", "the auditor")["head"]
    (run.folder / "kept").write_text(note, encoding="utf-8")
    assert run("ledger", "verify", LEDGER, "--head", "kept") == 0
    assert "extends 2 signed heads, the newest of 7 entries" in run.out
    assert run("ledger", "checkpoint", LEDGER, "--to", "the auditor") == 0
    (run.folder / "kept").write_text(run.out, encoding="utf-8")  # as a person would redirect it
    assert run("ledger", "verify", LEDGER, "--head", "kept") == 0


def test_an_export_is_every_entry(run: Run) -> None:
    assert run("ledger", "export", LEDGER) == 0
    lines = [json.loads(line) for line in run.out.splitlines()]
    assert run.json("ledger", "export", LEDGER) == {"entries": lines}
    assert [line["kind"] for line in lines] == ["create", "create", "reserve", "charge", "charge", "charge"]
    for line, following in pairwise(lines):
        assert following["previous"] == line["hash"]
    assert lines[3]["body"]["event"]["steps"] == 1


def test_a_round_and_then_the_rest_of_a_run_are_voided(run: Run) -> None:
    kit = run.folder / "r" / "silos" / "north"
    words = (
        "the outbox does not hold the update before round 3's, so that this one may have left; what left stays charged"
    )
    assert run("ledger", "void", LEDGER, "7", "--reason", "x", "--round", "3") == 4
    assert "the outbox is missing, as after a restore, so that round 3's update may have left" in told(run)
    with outbox(read_kit(kit), kit) as kept:
        kept.begin()
        assert kept.last == 0
    for last in (0, 4, 6, 7):  # the charges are entries 4, 5 and 6
        if last:
            with outbox(read_kit(kit), kit) as kept:
                kept.keep(Release(f"{3:064x}", last, b"an update"))
                kept.begin()
                assert kept.last == last
        assert run("ledger", "void", LEDGER, "7", "--reason", "x", "--round", "3") == 4
        assert words in told(run)
    with outbox(read_kit(kit), kit) as kept:
        kept.keep(Release(f"{2:064x}", 5, b"an update"))
    assert run("ledger", "void", LEDGER, "7", "--reason", "x", "--round", "2") == 4
    assert "the newest charge of the ledger is not of round 2 of run 7" in told(run)
    assert run("ledger", "void", LEDGER, "8", "--reason", "x", "--round", "3") == 2
    assert "has no run '8'; known: 7" in told(run)
    assert run("ledger", "void", LEDGER, "7", "--reason", "x", "--round", "3") == 0
    assert "the newest charge of round 3 of run 7 is taken back" in run.out
    assert run.json("ledger", "void", LEDGER, "7", "--reason", "x") == {
        "done": "run 7 holds nothing more, and no round of it can be charged"
    }
    assert run("ledger", "void", LEDGER, "7", "--reason", "x") == 4
    assert "run 7 holds no reservation" in told(run)
    assert run("ledger", "verify", LEDGER) == 0
    assert read_ledger(run.folder / LEDGER).runs["7"].taken == 2


def test_an_override_changes_the_cap(run: Run) -> None:
    (scope,) = run.json("budget", "show", LEDGER)["scopes"]
    by = ("--reason", "the board agreed", "--by", "A. Officer")
    assert run("ledger", "override", LEDGER, scope["scope"], "--epsilon", "50", *by) == 0
    assert "the cap is epsilon 50.0000, by A. Officer" in run.out
    assert run.json("budget", "show", LEDGER)["scopes"][0]["budget"] == 50
    assert run("ledger", "override", LEDGER, "nothing/record", "--epsilon", "50", *by) == 4
    assert f"has no scope 'nothing/record'; known: {scope['scope']}" in told(run)
    for epsilon in ("0", "-1", "nan", "inf", "1e-9"):
        assert run("ledger", "override", LEDGER, scope["scope"], "--epsilon", epsilon, *by) in (2, 4)
        told(run)
    assert run("ledger", "verify", LEDGER) == 0


@pytest.mark.parametrize(
    "verb",
    [
        ["verify"],
        ["export"],
        ["checkpoint", "--to", "x"],
        ["void", "7", "--reason", "x"],
        ["override", "x", "--epsilon", "1", "--reason", "x", "--by", "x"],
    ],
    ids=lambda verb: verb[0],
)
def test_a_missing_ledger_is_one_line(run: Run, verb: list[str]) -> None:
    """It is invalid where a signed head says that there was one, and else no ledger at all."""
    path = run.folder / LEDGER
    path.rename(run.folder / "away")
    assert run("ledger", verb[0], LEDGER, *verb[1:]) == 4
    assert "r/ledgers/north.sqlite: no such ledger, and a signed head of it is kept" in told(run)
    (run.folder / "r" / "silos" / "north" / "ledger.head").rename(run.folder / "kept")
    assert run("ledger", verb[0], LEDGER, *verb[1:]) == 2
    assert "r/ledgers/north.sqlite: no such ledger; name its file" in told(run)
    assert run("ledger", "verify", LEDGER, "--head", "kept") == 4
    assert run("budget", "show", LEDGER) == 2
    assert not path.exists()


def test_a_folder_is_looked_into_for_the_one_ledger_that_lies_there(run: Run) -> None:
    for named in ("r", "r/ledgers", "r/silos/north", "r/ledgers/../ledgers"):
        assert run("ledger", "verify", named) == 0
        assert run.out.startswith(str(run.folder / "r" / "ledgers" / "north.sqlite"))
        assert run("budget", "show", named) == 0
    (run.folder / "r" / "ledgers" / "south.sqlite").write_bytes((run.folder / LEDGER).read_bytes())
    assert run("ledger", "verify", "r/silos/north") == 0
    assert run("ledger", "verify", "r") == 2
    assert "r: has several ledgers; name one of r/ledgers/north.sqlite, r/ledgers/south.sqlite" in told(run)
    (run.folder / "empty").mkdir()
    assert run("ledger", "export", "empty") == 2
    assert "empty: no ledger lies in this folder" in told(run)


@pytest.mark.parametrize(
    "verb", [["checkpoint", "--to", "x"], ["void", "7", "--reason", "x"]], ids=lambda verb: verb[0]
)
def test_what_writes_needs_the_kit(run: Run, verb: list[str]) -> None:
    assert run("ledger", verb[0], LEDGER, *verb[1:], "--kit", "nowhere") == 2
    assert "nowhere" in told(run)
