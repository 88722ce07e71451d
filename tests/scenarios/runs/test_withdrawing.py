"""A person withdraws from a deployed silo: what is read from then on, and what nobody else gets to see of it."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import Scenario, SiloFile, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.crypto.sealed import opener_from_secret
from fedmodel.data import add_handed_out
from fedmodel.data.withdrawn import WITHDRAWN
from fedmodel.errors import ConfigError, DataError
from fedmodel.provision import read_law, unlocked
from scenarios.cli import main
from scenarios.runs import withdrawing
from scenarios.runs.withdrawing import withdraw
from tests.conftest import TINY
from tests.federations import Federation, issued

WARD = """
[data]
source = "table"
name = "ward"
label = "ill"
labels = ["no", "yes"]
person = "patient"
columns = [{ name = "age", type = "float", range = [0.0, 100.0] }]
"""
ROWS = "patient,age,ill\n007,31,no\n7,40,yes\n8,55,no\n9,20,yes\n"
PERSON = {"column": "patient", "form": "digits"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    folder = tmp_path_factory.mktemp("ward")
    persons = TINY[: TINY.index("[data]")].replace('unit = "record"', 'unit = "person"\nmax_records = 2')
    return issued(folder, scenario=persons + WARD)


class Ward:
    """Silo north of a federation, with a table of four rows of three persons, whose kit is unlocked."""

    def __init__(self, federation: Federation, scenario: Scenario) -> None:
        self.scenario, self.kit = scenario, federation.kit("north")
        self.key = federation.root / "keys" / "north.key"
        federation.unlock("north")
        (self.kit / "ward.csv").write_text(ROWS)
        (self.kit / "old.csv").write_text(ROWS)
        self.law({"ward": {"csv": "ward.csv", "person": PERSON}})

    def law(self, tables: dict[str, Any]) -> None:
        document = read_silo_file(self.kit / "silo.toml").model_dump()
        law = silo_file_to_toml(SiloFile.model_validate({**document, "tables": tables}))
        (self.kit / "silo.toml").write_text(law, encoding="utf-8")

    @property
    def silo(self) -> Silo:
        return Silo("north", self.scenario, "1", "cpu", self.kit, self.kit)

    def withdraw(self, *lines: str, table: str | None = None) -> withdrawing.Withdrawal:
        (self.kit.parent / "ids").write_text("\n".join(lines))
        return withdraw(self.kit, self.kit.parent / "ids", table)

    def files(self) -> dict[str, bytes]:
        """All that lies in the kit, but for what is this silo's alone to open or is empty."""
        found = {path.relative_to(self.kit): path for path in self.kit.rglob("*") if path.is_file()}
        return {str(name): path.read_bytes() for name, path in found.items()
                if name.parts[0] not in (WITHDRAWN, "cache", "outbox.lock")}  # fmt: skip


@pytest.fixture
def ward(made: Federation, tmp_path: Path) -> Ward:
    return Ward(made.copy(tmp_path / "out"), read_scenario(str(made.root.parent / "tiny.toml")))


def test_no_later_answer_is_made_from_their_records_and_nothing_else_changes(ward: Ward) -> None:
    with ward.silo.ledger() as ledger:
        ward.silo.reserve(ledger, plans.planned_event(ward.silo.plan))
    assert sorted(ward.silo.records().x_NF[:, 0].round(2)) == pytest.approx([-0.6, -0.38, -0.2, 0.1])
    assert [path.name for path in (ward.kit / "cache").iterdir()] == ["ward.age"]
    before = ward.files()
    done = ward.withdraw("  7 ", "", "8.0")
    assert done == withdrawing.Withdrawal(("ward",), {}, {})
    assert list((ward.kit / "cache").iterdir()) == []
    assert ward.silo.records().x_NF[:, 0].round(2) == pytest.approx([-0.6])
    assert ward.withdraw("9").not_found == {}
    assert len(ward.silo.records()) == 0
    assert ward.files() == before  # ledger, head, outbox, logs: as long and as they were
    with ward.silo.ledger() as ledger:
        assert ledger.standing().runs["1"].plan == plans.planned_event(ward.silo.plan)  # lots, rate and divisor


def test_an_answer_that_is_being_made_is_waited_for(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the lock that the silo trains under, both the list is written and the caches are removed."""
    seen: list[str] = []

    def held(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def called(*given: Any) -> None:
            with (ward.kit / "outbox.lock").open("wb") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(name)
            real(*given)

        return called

    for name in ("add_withdrawn", "_forget"):
        monkeypatch.setattr(withdrawing, name, held(name, getattr(withdrawing, name)))
    ward.withdraw("7")
    assert seen == ["add_withdrawn", "_forget"]
    with ward.silo.outbox(), (ward.kit / "outbox.lock").open("wb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the silo's own is the same


def test_an_id_that_nobody_has_is_told_by_its_line(ward: Ward) -> None:
    assert ward.withdraw("7", "", "77").not_found == {"ward": [3]}
    (ward.kit / "ward.csv").unlink()
    done = ward.withdraw("9")
    assert (done.not_found, list(done.not_read)) == ({}, ["ward"])
    (ward.kit / "ward.csv").write_text(ROWS)
    assert len(ward.silo.records()) == 1  # of 8


def test_persons_withdraw_from_every_table_unless_one_is_named(ward: Ward) -> None:
    both = {"ward": {"csv": "ward.csv", "person": PERSON}, "old": {"csv": "old.csv", "person": "patient"}}
    ward.law(both)
    assert ward.withdraw("7").tables == ("ward", "old")
    assert ward.withdraw("8", table="old").tables == ("old",)
    assert len(ward.silo.records()) == 2
    ward.law({**both, "old": {"csv": "old.csv"}})
    with pytest.raises(ConfigError, match=r"\[tables\.old\] of silo\.toml does not say whose a row is"):
        ward.withdraw("9")
    assert ward.withdraw("9", table="ward").tables == ("ward",)
    with pytest.raises(ConfigError, match=r"silo\.toml has no such table; known: ward, old"):
        ward.withdraw("9", table="wards")


@pytest.mark.parametrize(
    ("lines", "words"), [((), "has no id"), ((" ",), "has no id"), (("7", "P-4711"), "line 2: the")]
)
def test_what_is_no_id_enters_nothing(ward: Ward, lines: tuple[str, ...], words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words) as refused:
        ward.withdraw(*lines)
    assert "4711" not in str(refused.value)
    assert not (ward.kit / WITHDRAWN).exists()


def test_a_list_that_does_not_open_stops_the_silo(ward: Ward) -> None:
    (ward.kit / WITHDRAWN).write_bytes(b"not a list")
    for reads in (ward.silo.records, lambda: ward.withdraw("7")):
        with pytest.raises(DataError, match="nobody can tell whose records may be read"):
            reads()
    assert (ward.kit / WITHDRAWN).read_bytes() == b"not a list"


def test_the_list_holds_whatever_the_silos_file_says_later(ward: Ward) -> None:
    ward.withdraw("7")
    ward.law({"ward": {"csv": "ward.csv"}})
    assert len(ward.silo.records()) == 2  # "007" is still theirs, though the scenario's form tells it from "7"
    ward.law({"ward": {"csv": "ward.csv", "person": "patient"}})
    with pytest.raises(ConfigError, match="run `silo withdraw` again"):
        ward.silo.records()
    ward.withdraw("8")
    assert len(ward.silo.records()) == 2  # of "007" and 9, since the silo says now that "007" is not "7"


def test_a_table_by_another_name_is_read_without_who_withdrew(ward: Ward) -> None:
    """Or not at all, where its file does not say by the same column and form whose a row is."""
    ward.withdraw("7")
    ward.scenario = read_again(ward.scenario)
    for person, records in ((PERSON, 2), (None, None), ("patient", None)):
        ward.law({"ward-2027": {"csv": "ward.csv"} | ({} if person is None else {"person": person})})
        if records is None:
            with pytest.raises(DataError, match="table 'ward-2027': persons withdrew from ward, and"):
                ward.silo.records()
        else:
            assert len(ward.silo.records()) == records
    ward.law({"ward-2027": {"csv": "ward.csv", "person": "patient"}})
    assert ward.withdraw("8").tables == ("ward-2027",)
    assert len(ward.silo.records()) == 2  # of "007" and 9, as its own word is now


def read_again(scenario: Scenario) -> Scenario:
    """The same scenario, of a table by another name."""
    return scenario.model_copy(update={"data": scenario.data.model_copy(update={"name": "ward-2027"})})


def test_what_was_handed_out_and_what_was_left_out_is_told(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.law({"ward": {"csv": "ward.csv", "person": PERSON, "held_out": 0.5}, "old": {"csv": "old.csv"}})
    done = ward.withdraw("7", table="ward")
    assert (done.left_out, done.handed_out) == (("old",), ("ward",))
    own = unlocked(ward.kit)
    source = read_law(ward.kit).tables["ward"].under(ward.kit)
    add_handed_out(ward.kit, opener_from_secret(own.age_secret), own.recipient, "ward", source)
    ward.law({"ward": {"csv": "ward.csv", "person": PERSON}, "old": {"csv": "old.csv"}})
    (tmp_path / "ids").write_text("7\n")
    words = ["silo", "withdraw", str(ward.kit), str(tmp_path / "ids"), "--key-file", str(ward.key), "--table", "ward"]
    monkeypatch.setattr(sys, "argv", ["fedmodel", *words])
    with pytest.raises(SystemExit):
        main.main()
    out, err = capsys.readouterr()
    assert "No later step of this silo reads" in " ".join(out.split())
    assert "old: they did not withdraw from it, by --table" in err
    assert "ward: rows that are held out may be theirs" in err
    assert "have the server's old file replaced" in err


def test_the_command_enters_ids_and_says_no_number(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids").write_text("7\n4711\n")
    words = ["silo", "withdraw", str(ward.kit), str(tmp_path / "ids"), "--key-file", str(ward.key)]
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["fedmodel", *words, *more])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert not ended.value.code
        assert "ward: has no record now of the ids in lines 2" in err
        assert "4711" not in out + err
    assert json.loads(out) == {
        "tables": ["ward"], "not_found": {"ward": [2]}, "not_read": {}, "left_out": [], "handed_out": [],
    }  # fmt: skip
    assert len(ward.silo.records()) == 2


def test_a_simulated_silo_has_no_list(tmp_path: Path, ward: Ward) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "silo.toml").write_text((ward.kit / "silo.toml").read_text())
    with pytest.raises(ConfigError, match="is a simulation's silo"):
        withdraw(tmp_path / "kit", tmp_path / "ids", None)
