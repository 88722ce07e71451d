"""What a ledger does when disk, clock, lock or folder fail it, and when an older or another file is put in place."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import pytest

from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, LedgerTampered, ProtocolError
from fedmodel.ledger import Asked, Entry, Ledger, Scope, head_file, merkle, origin_of, read_ledger, verify_ledger
from fedmodel.ledger import clock as clock_module
from fedmodel.ledger import file as file_module
from fedmodel.ledger.entries import void_body
from fedmodel.ledger.heads import Head, follow, open_head, sign_head
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.system import durable
from tests.ledgers import make_budget

SILO, KEY, OTHER = "north", SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
SCOPE = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
NAME, ORIGIN = SCOPE.name, origin_of(SILO)
PLAN = DpSgdEvent(40.0, 1.0, 1.0, 100, denominator=60)
WAY_OUT = "if a backup was put back, put the newest file in its place.*a person decides on a new kit and a new budget"


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "north.sqlite", SILO, KEY, folder / "kit" / "ledger.head")


def bypassed(folder: Path) -> Ledger:
    """Open a ledger as one who does not look at the head that is kept, but makes one that fits."""
    connection = sqlite3.connect(folder / "north.sqlite")
    nodes = {(level, place): value for level, place, value in connection.execute("SELECT * FROM nodes")}
    (size,) = connection.execute("SELECT max(sequence) FROM entries").fetchone()
    connection.close()
    root = merkle.root(size, lambda level, place: nodes[level, place])
    (folder / "made.head").write_bytes(sign_head(Head(ORIGIN, size, root), KEY))
    return Ledger(folder / "north.sqlite", SILO, KEY, folder / "made.head")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kit").mkdir()
    return tmp_path


@pytest.fixture
def charged(folder: Path) -> Path:
    """A ledger of 6 entries."""
    with opened(folder) as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
        for number in (1, 2, 3):
            ledger.charge("r1", number, 1, f"k{number}")
    return folder


def charge(ledger: Ledger, *rounds: int) -> None:
    for number in rounds:
        ledger.charge("r1", number, 1, f"k{number}")


@contextmanager
def refused(words: str, kind: type[LedgerError] = LedgerError) -> Iterator[None]:
    with pytest.raises(LedgerError, match=words) as caught:
        yield
    assert type(caught.value) is kind
    assert caught.value.exit_status == 4


def kept(folder: Path) -> bytes:
    return (folder / "kit" / "ledger.head").read_bytes()


def checked(folder: Path) -> int:
    """Verify everything, against the head that is kept, and return the size."""
    return verify_ledger(folder / "north.sqlite", KEY.public, [kept(folder)]).head.size


# Disk, files and folders


def test_a_full_disk_enters_nothing_and_is_survived(charged: Path) -> None:
    """The write-ahead log may not grow any further: what a full disk is to it. Once there is room, it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(charged) as ledger:
        charge(ledger, 4)
        size = (charged / "north.sqlite-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, hard))
        try:
            for number in (5, 6):
                with refused("north.sqlite: the ledger cannot be used: .*; nothing was released"):
                    ledger.charge("r1", number, 1, f"k{number}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ledger.standing().size == 7
        charge(ledger, 5)
    assert checked(charged) == 8


def test_a_full_disk_makes_no_half_a_ledger(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with refused("the ledger cannot be used"):
            opened(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (folder / "kit" / "ledger.head").exists()
    with opened(folder) as ledger:
        make_budget(ledger, SCOPE)
    assert checked(folder) == 2


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that everybody may go into, unlike pytest's."""
    folder = Path(mkdtemp())
    folder.chmod(0o755)
    (folder / "kit").mkdir()
    yield folder
    shutil.rmtree(folder)


def as_nobody(program: str, folder: Path) -> str:
    """Run a program as a user that owns nothing here, or, where this is no root, as the one who runs the tests."""
    preamble = f"""
import os, sys
from pathlib import Path
from fedmodel.crypto import SigningKey
from fedmodel.errors import FedmodelError
from fedmodel.ledger import Ledger, read_ledger, verify_ledger
folder, KEY = Path({str(folder)!r}), SigningKey(bytes([7]) * 32)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def opened():
    return Ledger(folder / "north.sqlite", "north", KEY, folder / "kit" / "ledger.head")
try:
"""
    ending = "\nexcept FedmodelError as error:\n    print(type(error).__name__, error.exit_status, error)\n"
    text = preamble + textwrap.indent(textwrap.dedent(program), "    ") + ending
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    return done.stdout


def test_a_file_that_cannot_be_written_is_refused_and_can_be_read(readable: Path) -> None:
    with opened(readable) as ledger:
        make_budget(ledger, SCOPE)
    (readable / "north.sqlite").chmod(0o444)
    (readable / "kit" / "ledger.head").chmod(0o444)
    readable.chmod(0o555)
    before = sorted(path.name for path in readable.iterdir())
    try:
        told = as_nobody("opened()", readable)
        assert told.startswith("LedgerError 4 ")
        assert "the ledger cannot be used: Permission denied; nothing was released" in told
        program = """
        print(read_ledger(folder / "north.sqlite").size)
        print(verify_ledger(folder / "north.sqlite", KEY.public, [(folder / "kit/ledger.head").read_bytes()]).head.size)
        """
        assert as_nobody(program, readable) == "2\n2\n"
    finally:
        readable.chmod(0o755)
    assert sorted(path.name for path in readable.iterdir()) == before


def test_a_folder_that_cannot_be_entered_is_a_clear_error(readable: Path) -> None:
    with opened(readable) as ledger:
        make_budget(ledger, SCOPE)
    for path in (readable / "kit" / "ledger.head", readable / "north.sqlite"):
        path.chmod(0o666)
    (readable / "kit").chmod(0)
    told = as_nobody("opened()", readable)
    assert told.startswith("LedgerError 4 ")
    assert "the ledger's head cannot be read: Permission denied" in told
    (readable / "kit").chmod(0o755)
    (readable / "in").mkdir()
    (readable / "north.sqlite").rename(readable / "in" / "north.sqlite")
    (readable / "in").chmod(0)
    place = 'folder / "in" / "north.sqlite"'
    for verb in (f'Ledger({place}, "north", KEY, folder / "kit/ledger.head")', f"verify_ledger({place})"):
        told = as_nobody(verb, readable)
        assert told.startswith("LedgerError 4 ")
        assert "north.sqlite" in told
    (readable / "in").chmod(0o755)


def test_a_folder_in_place_of_a_ledger_is_refused(folder: Path) -> None:
    (folder / "north.sqlite").mkdir()
    with refused("north.sqlite: the ledger cannot be used: Is a directory"):
        opened(folder)
    for read in (read_ledger, verify_ledger):
        with refused("north.sqlite: no such ledger"):
            read(folder / "north.sqlite")


def test_a_missing_folder_is_refused(folder: Path) -> None:
    with refused("No such file or directory"):
        Ledger(folder / "nowhere" / "north.sqlite", SILO, KEY, folder / "kit" / "ledger.head")


def test_what_is_no_database_is_refused_and_left_alone(folder: Path) -> None:
    path, content = folder / "north.sqlite", b"this is not a database, it is a line of text\n" * 50
    path.write_bytes(content)
    with refused("the ledger cannot be used: file is not a database"):
        opened(folder)
    for read in (read_ledger, verify_ledger):
        with refused("file is not a database", LedgerTampered):
            read(path)
    assert path.read_bytes() == content
    assert not (folder / "kit" / "ledger.head").exists()


@pytest.mark.parametrize("application", [0, 77])
def test_a_database_of_something_else_is_refused(folder: Path, application: int) -> None:
    path = folder / "north.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with refused("north.sqlite: is a database of something else, not a ledger"):
        opened(folder)
    for read in (read_ledger, verify_ledger):
        with refused("its header is not a ledger's", LedgerTampered):
            read(path)
    assert not (folder / "kit" / "ledger.head").exists()


def test_a_database_of_something_else_is_not_changed_by_being_refused(folder: Path) -> None:
    path = folder / "north.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    content = path.read_bytes()
    with refused("is a database of something else"):
        opened(folder)
    assert path.read_bytes() == content


def test_an_empty_file_is_made_a_ledger_only_where_no_head_is_kept(folder: Path) -> None:
    path = folder / "north.sqlite"
    path.touch()
    for read in (read_ledger, verify_ledger):
        with refused("nothing was ever entered into it, so it is no ledger yet"):
            read(path)
    with opened(folder) as ledger:
        make_budget(ledger, SCOPE)
    assert checked(folder) == 2
    path.write_bytes(b"")
    with refused(f"north.sqlite: is gone, and its head of 2 entries is kept; {WAY_OUT}", LedgerTampered):
        opened(folder)
    assert path.read_bytes() == b""


def test_reading_never_writes(charged: Path) -> None:
    before = {path.name: path.read_bytes() for path in charged.iterdir() if path.is_file()}
    read_ledger(charged / "north.sqlite")
    verify_ledger(charged / "north.sqlite", KEY.public, [kept(charged)])
    assert {path.name: path.read_bytes() for path in charged.iterdir() if path.is_file()} == before


# The head


def test_a_head_that_cannot_be_written_is_a_clear_error_and_the_next_one_is(charged: Path) -> None:
    before = kept(charged)
    blocked = charged / "kit" / "ledger.head.partial"
    blocked.mkdir()
    with opened(charged) as ledger:
        with refused("ledger.head: the ledger's head cannot be written: .*; what was entered stands"):
            ledger.charge("r1", 4, 1, "k4")
        assert kept(charged) == before
        assert ledger.is_charged("k4")
        blocked.rmdir()
        charge(ledger, 4)
    assert checked(charged) == open_head(kept(charged), ORIGIN, KEY.public).size == 8


def test_no_older_head_is_written_after_a_newer(charged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One writer is held up between making its head and writing it; another enters a charge meanwhile."""
    real, begun = durable.replace_file, threading.Event()
    others: list[threading.Thread] = []

    def slow(path: Path, data: bytes) -> None:
        if threading.current_thread() is threading.main_thread():
            begun.set()
            others[0].join(0.5)
        real(path, data)

    def other() -> None:
        begun.wait()
        with opened(charged) as ledger:
            charge(ledger, 5)

    others.append(threading.Thread(target=other))
    others[0].start()
    with opened(charged) as ledger, monkeypatch.context() as patched:
        patched.setattr(head_file, "replace_file", slow)
        charge(ledger, 4)
        others[0].join()
    assert checked(charged) == open_head(kept(charged), ORIGIN, KEY.public).size == 8


def test_a_head_in_a_folder_that_is_not_there_is_a_clear_error(folder: Path) -> None:
    (folder / "kit").rmdir()
    with refused("the ledger's head cannot be written: No such file or directory"):
        opened(folder)
    (folder / "kit").mkdir()
    with opened(folder) as ledger:
        make_budget(ledger, SCOPE)
    assert checked(folder) == 2


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"nonsense",
        sign_head(
            Head(ORIGIN, 0, bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")), OTHER
        ),
        sign_head(Head(origin_of("south"), 1, bytes(32)), KEY),
    ],
    ids=["empty", "nonsense", "another key", "another silo"],
)
def test_a_head_that_is_not_this_silos_opens_nothing(charged: Path, note: bytes) -> None:
    (charged / "kit" / "ledger.head").write_bytes(note)
    with refused("head", LedgerTampered):
        opened(charged)


def test_a_head_that_is_missing_is_refused_where_it_could_hide_a_rollback(charged: Path) -> None:
    note = kept(charged)
    (charged / "kit" / "ledger.head").unlink()
    with refused("north.sqlite: has 6 entries, and .*ledger.head with its newest head is missing", LedgerTampered):
        opened(charged)
    assert not (charged / "kit" / "ledger.head").exists()
    (charged / "kit" / "ledger.head").write_bytes(note)  # the way out that it names
    with opened(charged) as ledger:
        charge(ledger, 4)


def test_a_head_that_is_a_folder_is_a_clear_error(charged: Path) -> None:
    (charged / "kit" / "ledger.head").unlink()
    (charged / "kit" / "ledger.head").mkdir()
    with refused("ledger.head: the ledger's head cannot be read: Is a directory"):
        opened(charged)


# Clock and lock


def now_is(monkeypatch: pytest.MonkeyPatch, shift: timedelta) -> None:
    monkeypatch.setattr(clock_module, "now", lambda: datetime.now(UTC) + shift)


def test_a_clock_set_back_is_refused_and_the_newest_entrys_time_named(
    charged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = read_ledger(charged / "north.sqlite").last
    assert newest is not None
    now_is(monkeypatch, -timedelta(minutes=10))
    with opened(charged) as ledger:
        words = f"the clock says .*, before the newest entry's {newest.time.replace('+', '.')}; set the clock right"
        for deed in (
            lambda: ledger.charge("r1", 4, 1, "k4"),
            lambda: ledger.reserve(Asked(SCOPE, "r2", PLAN, 1)),
            lambda: ledger.release("r1", "ended"),
            lambda: ledger.void_charge("r1", 3, "nothing left"),
            lambda: ledger.audit({"subject": "x"}),
            lambda: ledger.checkpoint("x"),
            lambda: make_budget(ledger, Scope("lungs", "record", 1, 1e-3, 3.0, 5)),
        ):
            with refused(words):
                deed()
        assert ledger.standing().size == 6
    assert checked(charged) == 6


def test_an_override_is_entered_whatever_the_clock_says_and_is_the_way_out(
    charged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_is(monkeypatch, -timedelta(minutes=10))
    with opened(charged) as ledger:
        ledger.override(NAME, 3.5, "the clock was an hour ahead", "A. Officer")
        charge(ledger, 4)
        times = [entry.time for entry in ledger._entries("")]
        assert times[5] > times[6] <= times[7]
    assert checked(charged) == 8


@pytest.mark.parametrize(("seconds", "is_taken"), [(5, True), (59, True), (61, False)])
def test_a_clock_corrected_by_a_moment_is_tolerated(
    charged: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, is_taken: bool
) -> None:
    moment = datetime.now(UTC)
    monkeypatch.setattr(clock_module, "now", lambda: moment)
    with opened(charged) as ledger:
        charge(ledger, 4)
        monkeypatch.setattr(clock_module, "now", lambda: moment - timedelta(seconds=seconds))
        if is_taken:
            charge(ledger, 5, 6)
        else:
            with refused("the clock says"):
                ledger.charge("r1", 5, 1, "k5")
        times = [entry.time for entry in ledger._entries("")]
        assert times == sorted(times)
        assert times[-1] == moment.isoformat(timespec="milliseconds")
    assert checked(charged) == (9 if is_taken else 7)


def test_a_file_locked_for_too_long_is_a_clear_error(charged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "_LOCK_S", 0.2)
    with opened(charged) as ledger:
        other = sqlite3.connect(charged / "north.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with refused("the ledger cannot be used: database is locked; nothing was released"):
            ledger.charge("r1", 4, 1, "k4")
        assert ledger.standing().size == 6  # reading needs no lock
        assert checked(charged) == 6
        other.execute("COMMIT")
        other.close()
        charge(ledger, 4)


def test_who_makes_a_ledger_waits_for_another_who_does(folder: Path) -> None:
    """Nothing waits by itself for a file whose kind of journal is about to change."""
    locked = threading.Event()

    def other() -> None:
        connection = sqlite3.connect(folder / "north.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        locked.set()
        time.sleep(0.3)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    locked.wait()
    with opened(folder) as ledger:
        make_budget(ledger, SCOPE)
    thread.join()
    assert checked(folder) == 2


def test_a_beginning_that_nobody_signed_is_not_built_upon(folder: Path) -> None:
    """Nobody keeps a head of one entry alone; the silo's key is what tells whose it is."""
    with opened(folder):
        pass
    (folder / "kit" / "ledger.head").unlink()
    sql(folder, "UPDATE entries SET signature = zeroblob(64)")
    with refused("entry 1: its signature is not the silo's", LedgerTampered):
        opened(folder)


def test_a_writer_waits_for_another(charged: Path) -> None:
    program = """
import sqlite3, sys, time
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(0.5)
other.execute("COMMIT")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(charged / "north.sqlite")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with opened(charged) as ledger:
            charge(ledger, 4)
    assert checked(charged) == 7


# Damage, as it is met by whoever opens a ledger, and by a reader beside a writer


def test_a_damaged_byte_met_while_writing_is_an_error_of_the_ledger(charged: Path) -> None:
    """Never another kind, whatever byte it is; that nothing was changed is for `verify` to say."""
    path, note = charged / "north.sqlite", kept(charged)
    content = path.read_bytes()
    for place in (*range(100), *range(100, len(content), 41)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        for name in ("north.sqlite-wal", "north.sqlite-shm"):
            (charged / name).unlink(missing_ok=True)
        path.write_bytes(changed)
        (charged / "kit" / "ledger.head").write_bytes(note)
        try:
            with opened(charged) as ledger:
                ledger.charge("r1", 4, 1, "k4")
                ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
                ledger.proven(2)
        except LedgerError:
            pass


def test_a_damaged_page_is_an_error_of_the_ledger(charged: Path) -> None:
    """In whichever table it lies, and whatever is asked."""
    path, old = charged / "north.sqlite", kept(charged)
    with opened(charged) as ledger:
        ledger.reserve(Asked(SCOPE, "r2", replace(PLAN, steps=400, noise_multiplier=200.0), 1))
        for number in range(150):
            ledger.charge("r2", number, 1, f"{number:064x}")
    content, note = path.read_bytes(), kept(charged)
    for page in range(1, len(content) // 4096):
        changed = bytearray(content)
        changed[page * 4096] ^= 0xFF
        path.write_bytes(changed)
        (charged / "kit" / "ledger.head").write_bytes(note)
        try:
            with opened(charged) as ledger:
                for verb in (
                    lambda: ledger.head(),
                    lambda: ledger.check_extends(old, "the server"),
                    lambda: ledger.proven(50),
                    lambda: ledger.is_charged(f"{50:064x}"),
                    lambda: ledger.reservation("r2"),
                    lambda: ledger.scope(NAME),
                    lambda: ledger.charge("r1", 4, 1, "k4"),
                    lambda: ledger.checkpoint("x"),
                ):
                    with contextlib.suppress(LedgerError):
                        verb()
        except LedgerError:
            pass
        for name in ("north.sqlite-wal", "north.sqlite-shm"):
            (charged / name).unlink(missing_ok=True)
        path.write_bytes(changed)
        with pytest.raises(LedgerTampered):
            verify_ledger(path, KEY.public, [note])


def test_a_node_that_is_no_hash_is_an_error_of_the_ledger(charged: Path) -> None:
    """A node of text, as its one byte of type and 32 letters make it."""
    path = charged / "north.sqlite"
    connection = sqlite3.connect(path)
    (node,) = connection.execute("SELECT hash FROM nodes WHERE level = 2").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    place = content.find(node)
    content[place : place + 32] = b"A" * 32
    content[content.rfind(b"\x4c", 0, place)] = 0x4D
    path.write_bytes(content)
    with refused("north.sqlite: a node of its Merkle tree is missing, or none", LedgerTampered):
        opened(charged)


def sql(folder: Path, statement: str) -> None:
    """Change a ledger as one who has dropped its triggers."""
    connection = sqlite3.connect(folder / "north.sqlite", isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement)
    connection.close()


VERBS: dict[str, Callable[[Ledger], object]] = {
    "charge": lambda ledger: ledger.charge("r1", 4, 97, "k4"),
    "reserve": lambda ledger: ledger.reserve(Asked(SCOPE, "r2", PLAN, 1)),
    "void": lambda ledger: ledger.void_charge("r1", 3, "nothing left"),
    "release": lambda ledger: ledger.release("r1", "ended"),
    "override": lambda ledger: ledger.override(NAME, 9.0, "why", "A. Officer"),
    "checkpoint": lambda ledger: ledger.checkpoint("x"),
    "audit": lambda ledger: ledger.audit({"subject": "x"}),
}


@pytest.mark.parametrize(
    ("statement", "verbs"),
    [
        ("UPDATE entries SET body = replace(body, '\"steps\":100', '\"steps\":999') WHERE kind = 'reserve'", VERBS),
        ("UPDATE entries SET body = replace(body, '\"taken\":3', '\"taken\":0') WHERE sequence = 6", VERBS),
        ("UPDATE entries SET spent = 0 WHERE sequence = 6", VERBS),
        ("UPDATE entries SET run = 'r9' WHERE sequence = 6", VERBS),
        ("UPDATE entries SET body = '{' WHERE sequence = 6", VERBS),
        ("UPDATE entries SET signature = zeroblob(64) WHERE sequence = 6", VERBS),
        ("UPDATE entries SET signature = zeroblob(64) WHERE sequence = 3", VERBS),
        ("DELETE FROM entries WHERE sequence = 5", VERBS),
        ("DELETE FROM entries WHERE sequence = 3", VERBS),
        ("DELETE FROM nodes WHERE level = 0 AND position = 5", VERBS),
        ("UPDATE entries SET body = '{}' WHERE sequence = 1", VERBS),
        ("UPDATE entries SET round = 9 WHERE sequence = 4", [verb for verb in VERBS if verb != "charge"]),
    ],
)
def test_a_row_changed_between_two_readings_decides_nothing(
    charged: Path, statement: str, verbs: Iterable[str]
) -> None:
    """Whatever a deed rests on is signed, and stands in the tree; a charge does not read what it does not rest on."""
    sql(charged, statement)
    content = (charged / "north.sqlite").read_bytes()
    for verb in verbs:
        with pytest.raises(LedgerTampered) as caught, opened(charged) as ledger:
            VERBS[verb](ledger)
        assert caught.value.exit_status == 4
        assert "north.sqlite" in str(caught.value) or caught.value.sequence is not None
    assert (charged / "north.sqlite").read_bytes()[100:] == content[100:]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET run = 'r9' WHERE sequence IN (5, 6)",
        "UPDATE entries SET run = NULL WHERE run = 'r1' AND kind <> 'reserve'",
        "UPDATE entries SET run = run || 'x' WHERE run = 'r1' AND kind <> 'reserve'",
        "UPDATE entries SET kind = 'audit' WHERE sequence IN (5, 6)",
    ],
)
def test_a_charge_that_is_hidden_from_its_run_is_not_spent_again(charged: Path, statement: str) -> None:
    """A row that is changed so that nobody asks for it is as good as deleted, and its tree and number still stand."""
    with opened(charged) as ledger:
        charge(ledger, *range(4, 101))
        ledger.void_charge("r1", 100, "nothing left")  # 99 of 100 are taken, and it is the newest entry of the run
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
        ledger.charge("r2", 1, 1, "q1")
    sql(charged, statement.replace("(5, 6)", "(SELECT sequence FROM entries WHERE run = 'r1' AND sequence > 50)"))
    with refused("entr|north", LedgerTampered), opened(charged) as ledger:
        ledger.charge("r1", 101, 50, "k101")


@pytest.mark.parametrize("newest", ["an audit", "an entry of another scope"])
def test_a_charge_that_is_hidden_from_its_run_and_its_scope_is_found_by_the_next_full_reading(
    charged: Path, newest: str
) -> None:
    """What is left of the scope agrees with itself, so a charge does not see it; a join, which reads all, does."""
    with opened(charged) as ledger:
        charge(ledger, *range(4, 100))
        if newest == "an audit":
            ledger.audit({"subject": "x"})
        else:
            make_budget(ledger, Scope("lungs", "record", 1, 1e-3, 3.0, 5))
    sql(charged, "UPDATE entries SET run = NULL, scope = NULL WHERE run = 'r1' AND sequence > 6")
    with pytest.raises(LedgerTampered):
        verify_ledger(charged / "north.sqlite", KEY.public, unused=False)
    with opened(charged) as ledger, pytest.raises(LedgerTampered):
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))


def test_a_release_that_is_hidden_from_its_run_does_not_open_it_again(charged: Path) -> None:
    with opened(charged) as ledger:
        ledger.release("r1", "ended")
        ledger.reserve(Asked(SCOPE, "r2", PLAN, 1))
        ledger.charge("r2", 1, 1, "q1")
    sql(charged, "UPDATE entries SET run = 'r9' WHERE kind = 'void'")
    with refused("entr|north", LedgerTampered), opened(charged) as ledger:
        ledger.charge("r1", 4, 1, "k4")


@pytest.mark.parametrize("verb", VERBS)
def test_a_row_that_nobody_signed_is_not_built_upon(charged: Path, verb: str) -> None:
    """Appended behind the head that is kept, with its place in chain and tree: a void that gives a step back."""
    connection = sqlite3.connect(charged / "north.sqlite", isolation_level=None)
    columns = ", ".join(file_module.COLUMNS)
    row = connection.execute(f"SELECT {columns} FROM entries ORDER BY sequence DESC").fetchone()  # noqa: S608
    last = Entry(*row)
    body = void_body(6, "forged", 2)
    totals = (last.cap, last.reserved, 3125)
    forged = Entry(7, last.time, NAME, "r1", 3, "void", None, body, *totals, last.hash).sign(OTHER)

    def node(level: int, place: int) -> bytes:
        found = connection.execute("SELECT hash FROM nodes WHERE level = ? AND position = ?", (level, place))
        return bytes(found.fetchone()[0])

    file_module.insert(connection, forged, node)
    connection.close()
    with refused("entry 7: its signature is not the silo's", LedgerTampered), opened(charged) as ledger:
        VERBS[verb](ledger)


@pytest.mark.parametrize("moment", ["_check_schema", "_check_nodes", "_check_bytes"])
def test_a_writer_that_comes_while_a_ledger_is_verified_is_no_tampering(
    charged: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A false alarm of tampering is what teaches people to ignore true ones."""
    from fedmodel.ledger import verifying

    real = getattr(verifying, moment)
    written: list[bool] = []

    def late(*arguments: object) -> object:
        if not written:
            with opened(charged) as ledger:
                charge(ledger, *range(4, 60))
            written.append(True)
        return real(*arguments)

    note = kept(charged)
    monkeypatch.setattr(verifying, moment, late)
    assert verify_ledger(charged / "north.sqlite", KEY.public, [note]).head.size in (6, 62)
    assert written


def test_a_file_that_is_written_all_the_time_is_neither_whole_nor_tampered_with(
    charged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmodel.ledger import verifying

    sql(charged, "UPDATE entries SET round = 9 WHERE sequence = 4")
    moments = itertools.count()
    monkeypatch.setattr(verifying, "_moment", lambda path: (next(moments),))
    for read in (read_ledger, verify_ledger):
        with refused("north.sqlite: is written to all the time; verify it when it is not"):
            read(charged / "north.sqlite")


def test_a_ledger_is_verified_while_it_is_open(charged: Path) -> None:
    with opened(charged) as ledger:
        charge(ledger, 4)
        assert (charged / "north.sqlite-wal").exists()
        assert checked(charged) == 7
        link = charged / "linked" / "north.sqlite"
        link.parent.mkdir()
        link.symlink_to(charged / "north.sqlite")
        assert verify_ledger(link, KEY.public, [kept(charged)]).head.size == 7
        assert read_ledger(link).size == 7
        charge(ledger, 5)
    assert checked(charged) == 8


# Rollbacks and forks


def test_last_weeks_copy_is_refused(charged: Path) -> None:
    path = charged / "north.sqlite"
    backup = path.read_bytes()
    with opened(charged) as ledger:
        charge(ledger, 4, 5)
    newest = path.read_bytes()
    path.write_bytes(backup)
    words = f"has 6 entries where the head kept beside its keys has 8: newer ones are gone; {WAY_OUT}"
    with refused(words, LedgerTampered):
        opened(charged)
    assert path.read_bytes()[100:] == backup[100:]
    with refused("its newest entries are gone: a signed head has 8, and 6 are left", LedgerTampered):
        checked(charged)
    path.write_bytes(newest)  # the way out that it names
    assert checked(charged) == 8
    with opened(charged) as ledger:
        charge(ledger, 6)


@pytest.mark.parametrize("more", [2, 3, 9])
def test_a_fork_of_the_same_or_greater_length_is_refused(charged: Path, more: int) -> None:
    path = charged / "north.sqlite"
    backup = path.read_bytes()
    with opened(charged) as ledger:
        charge(ledger, 4, 5)
    path.write_bytes(backup)
    with bypassed(charged) as ledger:
        charge(ledger, *range(10, 10 + more))
    words = "is not what the head kept beside its keys is of: its first 8 entries are others"
    with refused(f"{words}; {WAY_OUT}", LedgerTampered):
        opened(charged)
    with refused("its first 8 entries are not those that a signed head is of", LedgerTampered):
        checked(charged)
    assert verify_ledger(path, KEY.public).head.size == 6 + more  # without that head, it is whole


def test_a_deleted_ledger_is_refused_as_long_as_any_head_is_kept(charged: Path) -> None:
    note = kept(charged)
    (charged / "north.sqlite").unlink()
    with refused(f"north.sqlite: is gone, and its head of 6 entries is kept; {WAY_OUT}", LedgerTampered):
        opened(charged)
    assert not (charged / "north.sqlite").exists()
    (charged / "kit" / "ledger.head").unlink()
    with opened(charged) as ledger:  # nobody here can know better
        words = f"has 1 entry where the head that the server keeps has 6: newer ones are gone; {WAY_OUT}"
        with refused(words, LedgerTampered):
            ledger.check_extends(note, "the server")
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "r1", PLAN, 1))
        charge(ledger, 1, 2, 3)
        with refused(
            "is not what the head that the server keeps is of: its first 6 entries are others", LedgerTampered
        ):
            ledger.check_extends(note, "the server")


def test_a_head_that_somebody_keeps_is_of_this_ledger_and_signed_with_its_key(charged: Path) -> None:
    head = open_head(kept(charged), ORIGIN, KEY.public)
    with opened(charged) as ledger:
        assert ledger.check_extends(kept(charged), "the server") == 6
        charge(ledger, 4)
        assert ledger.check_extends(sign_head(head, KEY), "the server") == 6
        for note in (b"", sign_head(head, OTHER), sign_head(Head(origin_of("south"), 6, head.root), KEY)):
            with pytest.raises(ProtocolError, match="what the server keeps is no head of this silo's ledger"):
                ledger.check_extends(note, "the server")
        with refused("its first 6 entries are others", LedgerTampered):
            ledger.check_extends(sign_head(Head(ORIGIN, 6, bytes(32)), KEY), "the server")


def test_every_proven_head_is_followed_and_none_of_a_fork(charged: Path) -> None:
    path = charged / "north.sqlite"
    heads: dict[int, Head | None] = {0: None}
    for size in range(2, 7):  # what keepers had got at every size
        with opened(charged) as ledger:
            heads[size] = Head(ORIGIN, size, merkle.root(size, ledger._node))
    backup = path.read_bytes()
    with opened(charged) as ledger:
        charge(ledger, *range(4, 12))
        heads[14] = open_head(ledger.head(), ORIGIN, KEY.public)
        for since, last in heads.items():
            assert follow(ledger.proven(since), ORIGIN, KEY.public, last) == heads[14]
        for since in (-1, 15):
            with refused(f"does not extend one of {since}"):
                ledger.proven(since)
    path.write_bytes(backup)
    with bypassed(charged) as ledger:
        charge(ledger, *range(20, 40))
        for since in range(2, 7):  # of what both have in common
            assert follow(ledger.proven(since), ORIGIN, KEY.public, heads[since]).size == 26
        for since in (5, 14):
            with pytest.raises(LedgerTampered):
                follow(ledger.proven(since), ORIGIN, KEY.public, heads[14])


# The write-ahead log


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process leaves: 16 entries, most of them in the write-ahead log alone."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "kit").mkdir()
    program = """
import os, sys
from pathlib import Path
from fedmodel.crypto import SigningKey
from fedmodel.ledger import Asked, Ledger, Scope
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
folder, key = Path(sys.argv[1]), SigningKey(bytes([7]) * 32)
scope = Scope("hearts", "record", 1, 1e-3, 3.0, 5)
with Ledger(folder / "north.sqlite", "north", key, folder / "kit" / "ledger.head") as ledger:
    ledger.reserve(Asked(scope, "r1", DpSgdEvent(40.0, 1.0, 1.0, 100, 60), 1))
    ledger.charge("r1", 1, 1, "k1")
ledger = Ledger(folder / "north.sqlite", "north", key, folder / "kit" / "ledger.head")
for number in range(2, 14):
    ledger.charge("r1", number, 1, f"k{number}")
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


def copied(killed: Path, folder: Path) -> Path:
    shutil.copytree(killed, folder, dirs_exist_ok=True)
    assert (folder / "north.sqlite-wal").stat().st_size > 10_000
    return folder


def test_what_a_killed_process_committed_is_whole_before_and_after_it_is_recovered(
    killed: Path, tmp_path: Path
) -> None:
    folder = copied(killed, tmp_path / "a")
    names = ("north.sqlite", "north.sqlite-wal")
    before = [(folder / name).read_bytes() for name in names]
    found = verify_ledger(folder / "north.sqlite", KEY.public, [kept(folder)])
    assert (found.head.size, found.heads, found.unused_compared) == (16, (16,), False)
    assert [(folder / name).read_bytes() for name in names] == before
    with opened(folder) as ledger:
        assert ledger.standing().runs["r1"].taken == 13
        charge(ledger, 14)
    assert not (folder / "north.sqlite-wal").exists()
    assert checked(folder) == 17
    assert verify_ledger(folder / "north.sqlite", KEY.public).unused_compared


def test_a_deleted_write_ahead_log_is_noticed_by_the_head(killed: Path, tmp_path: Path) -> None:
    folder = copied(killed, tmp_path / "a")
    (folder / "north.sqlite-wal").unlink()
    (folder / "north.sqlite-shm").unlink(missing_ok=True)
    with refused("its newest entries are gone: a signed head has 16, and 4 are left", LedgerTampered):
        checked(folder)
    with refused("has 4 entries where the head kept beside its keys has 16", LedgerTampered):
        opened(folder)


def test_a_byte_flipped_in_the_write_ahead_log_is_noticed_by_the_head(killed: Path, tmp_path: Path) -> None:
    folder = copied(killed, tmp_path / "a")
    log = folder / "north.sqlite-wal"
    content, main = log.read_bytes(), (folder / "north.sqlite").read_bytes()
    frame = 4096 + 24
    assert len(content) % frame == 32
    last = len(content) - frame
    places = {*range(32), *range(last, last + 24), *range(32, 56), *range(40, len(content), 2741), len(content) - 1}
    for place in sorted(places):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        log.write_bytes(changed)
        (folder / "north.sqlite-shm").unlink(missing_ok=True)
        with pytest.raises(LedgerTampered) as caught:
            checked(folder)
        assert caught.value.exit_status == 4
        if place % 5 == 0:
            with pytest.raises(LedgerTampered):
                opened(folder)
            (folder / "north.sqlite").write_bytes(main)
            (folder / "north.sqlite-wal").unlink(missing_ok=True)
    log.write_bytes(content)
    (folder / "north.sqlite-shm").unlink(missing_ok=True)
    assert checked(folder) == 16


def test_a_log_cut_between_two_entries_is_noticed_by_the_head(killed: Path, tmp_path: Path) -> None:
    folder = copied(killed, tmp_path / "a")
    log = folder / "north.sqlite-wal"
    content = log.read_bytes()
    for length in (0, 31, 32, len(content) // 2, len(content) - 4120, len(content) - 1):
        log.write_bytes(content[:length])
        (folder / "north.sqlite-shm").unlink(missing_ok=True)
        with refused("a signed head has 16", LedgerTampered):
            checked(folder)


def test_another_ledgers_log_is_refused(killed: Path, charged: Path, tmp_path: Path) -> None:
    """SQLite would take it for this file's own; no signature of an entry is at fault, but the file no longer is one."""
    folder = copied(killed, tmp_path / "a")
    shutil.copy(charged / "north.sqlite", folder / "north.sqlite")
    (folder / "north.sqlite-shm").unlink(missing_ok=True)
    shutil.copy(charged / "kit" / "ledger.head", folder / "kit" / "ledger.head")
    with pytest.raises(LedgerTampered):
        checked(folder)
