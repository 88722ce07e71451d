"""What silos' own logs say of a simulation that failed reaches the terminal of its one user, and no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.errors import DropoutError, FedmodelError, PolicyRefused
from scenarios.simulation.causes import causes_told

SILOS = ("north", "south", "west", "east", "coast")
TIME = "2026-01-01T00:00:00.000+00:00"
FULL = "LedgerError: /r/ledgers/north.sqlite: the ledger cannot be used: No space left on device; nothing was released"


def log(logs: Path, silo: str, *lines: str) -> None:
    logs.mkdir(exist_ok=True)
    with (logs / f"{silo}.log").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def fail(logs: Path, error: FedmodelError, **lines: list[str]) -> None:
    """End a simulation in which silos write these lines into their logs."""
    with causes_told(logs, SILOS):
        for silo, told in lines.items():
            log(logs, silo, *told)
        raise error


@pytest.mark.parametrize("kind", [DropoutError, FedmodelError])  # in this process, and under Flower
def test_the_last_error_of_each_silo_is_told_in_one_line(tmp_path: Path, kind: type[FedmodelError]) -> None:
    """As want of silos, whatever brought the words here."""
    log(tmp_path, "north", f"{TIME} train: LedgerError: of a life before")
    log(tmp_path, "west", f"{TIME} train: OSError: of a life before")
    north = [f"{TIME} query.join: LedgerError: an earlier one", f"{TIME} train: {FULL}", "  Traceback", "  a: b: c"]
    with pytest.raises(DropoutError) as failed:
        fail(tmp_path, kind("too few"), north=north, south=[f"{TIME} join: the budget pays for 1 of 2 steps"])
    assert str(failed.value) == f"too few. north: train: {FULL}"


def test_of_many_silos_three_are_told(tmp_path: Path) -> None:
    with pytest.raises(DropoutError, match=r"^too few\. north: .*; south: .*; west: .*; and 2 more$"):
        fail(tmp_path, DropoutError("too few"), **{silo: [f"{TIME} train: {FULL}"] for silo in SILOS})


def test_where_no_log_can_be_written_the_disks_own_word_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    logs = tmp_path / "file" / "logs"
    with pytest.raises(DropoutError) as failed:
        fail(logs, DropoutError("too few"))
    assert str(failed.value) == f"too few. no line of theirs can be written: {logs}: Not a directory"


def test_where_no_silo_says_why_nothing_is_added_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(DropoutError, match=r"^too few$"):
        fail(tmp_path, DropoutError("too few"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_want_of_silos_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=r"^refused$"):
        fail(tmp_path, PolicyRefused("refused"), north=[f"{TIME} train: {FULL}"])


@pytest.mark.parametrize("kind", ["RuntimeError", "OSError", "DataError"])
def test_what_could_tell_of_a_record_stays_in_the_log_whose_path_is_told(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DropoutError) as failed:
        fail(tmp_path, DropoutError("too few"), north=[f"{TIME} train: {kind}: patient Ada", "  ValueError: Ada"])
    assert str(failed.value) == f"too few. north: train: {kind} (its log is {tmp_path / 'north.log'})"


def test_the_first_silos_own_refusal_is_told_with_the_path_of_its_log(tmp_path: Path) -> None:
    refusals = {silo: [f"{TIME} train: PrivacyError: {silo}'s model couples records"] for silo in ("south", "west")}
    with pytest.raises(DropoutError) as failed:
        fail(tmp_path, DropoutError("too few"), north=[f"{TIME} joined"], **refusals)
    said = "south: train: PrivacyError: south's model couples records"
    assert str(failed.value) == f"too few. {said} (its log is {tmp_path / 'south.log'})"


def test_a_disks_word_is_told_before_a_refusal(tmp_path: Path) -> None:
    north, south = [f"{TIME} train: PrivacyError: couples records"], [f"{TIME} train: {FULL}"]
    with pytest.raises(DropoutError) as failed:
        fail(tmp_path, DropoutError("too few"), north=north, south=south)
    assert str(failed.value) == f"too few. south: train: {FULL}"


def test_an_error_of_the_system_is_told_with_its_path(tmp_path: Path) -> None:
    line = "train: OSError: [Errno 28] No space left on device: '/r/silos/north/outbox'"
    with pytest.raises(DropoutError) as failed:
        fail(tmp_path, DropoutError("too few"), north=[f"{TIME} {line}", f"{TIME} train: RuntimeError: patient Ada"])
    assert str(failed.value) == f"too few. north: {line}"
