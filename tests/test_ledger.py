"""A ledger keeps what was charged, in order, through crashes, and never lets a run take more than it reserved."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.ledger import Ledger, Scope, read_ledger
from fedmodel.mechanisms import DpSgdEvent

SCOPE = Scope("north", "record", 1e-3, 3.0)
PLAN = DpSgdEvent(6.5, 1.0, 1.0, 40, denominator=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "north.sqlite"


def test_charges_are_kept_and_replayed_in_order(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)
        ledger.charge("r1", 1, 3)
    with Ledger(path, SCOPE) as ledger:
        assert ledger.reservation("r1") == PLAN
        ledger.charge("r1", 2, 5)
    scope, events = read_ledger(path)
    assert scope == SCOPE
    assert [event.steps for event in events] == [3, 5]
    assert {event.noise_multiplier for event in events} == {6.5}


def test_a_run_never_takes_more_steps_than_it_reserved(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)
        ledger.charge("r1", 1, 39)
        with pytest.raises(PrivacyBudgetExceeded, match="asks for 2 steps; run r1 has taken 39 of the 40"):
            ledger.charge("r1", 2, 2)
        ledger.charge("r1", 2, 1)
    assert sum(event.steps for event in read_ledger(path)[1]) == 40


def test_a_run_is_reserved_once_and_before_it_is_charged(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        with pytest.raises(LedgerError, match="no reservation"):
            ledger.charge("r1", 1, 1)
        ledger.reserve("r1", PLAN)
        with pytest.raises(LedgerError, match="reserved already"):
            ledger.reserve("r1", PLAN)
    assert read_ledger(path)[1] == []


def test_two_writers_fill_a_reservation_exactly(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)

    def writer(_: int) -> int:
        charged = 0
        with Ledger(path, SCOPE) as own:
            for _ in range(20):
                try:
                    own.charge("r1", 1, 1)
                except PrivacyBudgetExceeded:
                    break
                charged += 1
        return charged

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(writer, range(4))) == 40
    assert len(read_ledger(path)[1]) == 40


def test_another_scope_is_refused(path: Path) -> None:
    with Ledger(path, SCOPE):
        pass
    with pytest.raises(LedgerError, match="use another file"):
        Ledger(path, Scope("north", "record", 1e-5, 3.0))


def test_a_charge_survives_a_kill(path: Path) -> None:
    """A real process, killed by a real signal, right after `charge` has returned."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fedmodel.ledger import Ledger, Scope
        from fedmodel.mechanisms import DpSgdEvent
        ledger = Ledger(Path(sys.argv[1]), Scope("north", "record", 1e-3, 3.0))
        ledger.reserve("r1", DpSgdEvent(6.5, 1.0, 1.0, 40, denominator=60))
        ledger.charge("r1", 1, 7)
        print("charged", flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "charged\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [event.steps for event in read_ledger(path)[1]] == [7]


def test_every_entry_is_synced_with_its_folder(path: Path) -> None:
    """A kill keeps the kernel's cache, so no kill can show this; the setting can (3 is EXTRA)."""
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)
        assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (3,)


def test_a_failed_entry_leaves_nothing_behind(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)
        with contextlib.suppress(RuntimeError), ledger._transaction():
            ledger._append("charge", "r1", 1, "{}")
            raise RuntimeError
        ledger.charge("r1", 1, 1)
    assert len(read_ledger(path)[1]) == 1


@pytest.mark.parametrize("content", [b"", b"this is not a database, it is a line of text......................"])
def test_what_is_no_ledger_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        read_ledger(path)


def test_a_missing_ledger_is_refused(path: Path) -> None:
    with pytest.raises(LedgerError, match="no such ledger"):
        read_ledger(path)
    assert not path.exists()


def test_an_unknown_event_in_a_row_is_refused(path: Path) -> None:
    with Ledger(path, SCOPE) as ledger:
        ledger.reserve("r1", PLAN)
        ledger.charge("r1", 1, 1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET body = '{\"mechanism\":\"none\"}' WHERE kind = 'charge'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="mechanism is not known"):
        read_ledger(path)


def test_reading_does_not_write(path: Path) -> None:
    with Ledger(path, SCOPE):
        pass
    before = path.read_bytes()
    read_ledger(path)
    assert path.read_bytes() == before
