"""One silo holds a part of its table out: those rows never train, and the server reads them as the silo's file says."""

from __future__ import annotations

import fcntl
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from clients.sentences import sentences
from clients.silo import Silo
from fedmodel.config import Scenario, ServerFile, TableSource, read_silo_file, scenario_to_toml
from fedmodel.data import held_out_table
from fedmodel.data.handed_out import HANDED_OUT
from fedmodel.data.holding_out import is_held_out
from fedmodel.errors import ConfigError, DataError
from scenarios.cli import main
from scenarios.runs import handing_out
from scenarios.runs.handing_out import hand_out
from tests.scenarios.runs.test_withdrawing import PERSON, Ward, made, ward

__all__ = ["made", "ward"]  # fixtures
SHARE = 0.5
IDS = [str(number) for number in range(40)]
HELD = {one for one in IDS if is_held_out(one, SHARE)}


@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_holds_out_all_of_a_smaller_one(one: str, share: float, other: float) -> None:
    small, large = sorted((share, other))
    assert is_held_out(one, large) or not is_held_out(one, small)


def test_a_share_is_about_what_it_says() -> None:
    for share in (0.1, 0.5, 0.9):
        held = sum(is_held_out(str(number), share) for number in range(10_000))
        assert abs(held - 10_000 * share) < 5 * np.sqrt(10_000 * share * (1 - share))


def lay(ward: Ward, ids: list[str], **keys: object) -> None:
    """A table of two rows of each person, spelled in two ways; a person's age is her number."""
    rows = [f"{spelled};{number};{('no', 'yes')[number % 2]};x" for number in map(int, ids)
            for spelled in (str(number), f"0{number}")]  # fmt: skip
    (ward.kit / "ward.csv").write_text("\n".join(["patient;age;ill;note", *rows, ""]))
    form = {"csv": "ward.csv", "person": PERSON, "separator": ";", "leave_out": ["note"]}
    ward.law({"ward": form | keys})


def ages(x_NF: np.ndarray) -> list[int]:
    return sorted(np.rint((x_NF[:, 0] + 1) * 50).astype(int).tolist())


def test_rows_that_are_held_out_never_train_and_the_others_are_not_handed_out(ward: Ward, tmp_path: Path) -> None:
    lay(ward, IDS)
    assert ages(ward.silo.records().x_NF) == sorted([*range(40), *range(40)])
    with pytest.raises(ConfigError, match=r"\[tables\.ward\] of silo\.toml does not say held_out"):
        hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    lay(ward, IDS, held_out=SHARE)
    held, trained = sorted(int(one) for one in HELD), sorted(int(one) for one in set(IDS) - HELD)
    assert ages(ward.silo.records().x_NF) == sorted(trained * 2)
    done = hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    assert (done.table, done.keys) == ("ward", {"separator": ";"})
    assert stat.S_IMODE(done.file.stat().st_mode) == 0o600
    text = done.file.read_text()
    assert "note" not in text
    assert {line.split(";")[-1].strip('"') for line in text.splitlines()[1:]} == {
        str(1 + at) for at in range(len(held))
    }
    source = TableSource.model_validate({"csv": str(done.file), **done.keys})
    assert ages(held_out_table(ward.scenario.data, source).x_NF) == sorted(held * 2)


def test_a_table_with_types_of_its_own_is_handed_out_with_them(ward: Ward, tmp_path: Path) -> None:
    """As Parquet, with text in place of ids that are numbers."""
    numbers = list(range(40))
    columns = {"patient": numbers, "age": [float(one) for one in numbers], "ill": ["no", "yes"] * 20}
    parquet.write_table(pa.table(columns), ward.kit / "ward.parquet")
    ward.law({"ward": {"parquet": "ward.parquet", "person": PERSON, "held_out": SHARE, "yes": ["ja"], "no": ["nein"]}})
    done = hand_out(ward.kit, ward.scenario, tmp_path / "held.parquet")
    assert done.keys == {"yes": ["ja"], "no": ["nein"]}
    source = TableSource.model_validate({"parquet": str(done.file), **done.keys})
    assert ages(held_out_table(ward.scenario.data, source).x_NF) == sorted(int(one) for one in HELD)
    assert parquet.read_table(done.file)["age"].type == pa.float64()


def test_the_server_measures_on_all_that_it_was_handed() -> None:
    table = {"ward": {"csv": "h.csv", "person": "patient", "held_out": 0.5}}
    with pytest.raises(ValueError, match=r"ward\.held_out is said by a silo alone"):
        ServerFile.model_validate({"federation": "f", "listen": "127.0.0.1:9443", "hosts": ["h"], "tables": table})


def test_what_is_held_out_hangs_on_no_other_row(ward: Ward, tmp_path: Path) -> None:
    lay(ward, IDS[:20], held_out=SHARE)
    few = set(ages(ward.silo.records().x_NF))
    lay(ward, IDS[::-1], held_out=SHARE)
    assert {one for one in ages(ward.silo.records().x_NF) if one < 20} == few


def test_who_withdrew_is_not_handed_out(ward: Ward, tmp_path: Path) -> None:
    lay(ward, IDS, held_out=SHARE)
    gone = min(HELD, key=int)
    ward.withdraw(gone)
    done = hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    found = ages(
        held_out_table(ward.scenario.data, TableSource.model_validate({"csv": str(done.file), **done.keys})).x_NF
    )
    assert found == sorted([int(one) for one in HELD - {gone}] * 2)
    assert set(ages(ward.silo.records().x_NF)) == {int(one) for one in set(IDS) - HELD}


def test_the_law_says_so_in_a_sentence(ward: Ward) -> None:
    def told() -> list[str]:
        return [line for line in sentences(read_silo_file(ward.kit / "silo.toml")) if "HELD OUT" in line]

    lay(ward, IDS)
    assert told() == []
    before = (ward.kit / "silo.toml").read_text()
    assert "held_out" not in before  # a law that does not say it has the text that it had
    lay(ward, IDS, held_out=0.2)
    (line,) = told()
    assert (
        "Of ward, a share of 0.2 of its persons is HELD OUT: their records do not train, and are handed to the" in line
    )
    assert "no epsilon covers these persons" in line


def test_nothing_is_written_over_and_nothing_is_left_of_what_is_refused(ward: Ward, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out needs person"):
        TableSource(csv="ward.csv", held_out=0.2)
    lay(ward, IDS, held_out=SHARE)
    with pytest.raises(ConfigError, match=r"give a name that ends in \.csv"):
        hand_out(ward.kit, ward.scenario, tmp_path / "held.parquet")
    (tmp_path / "held.csv").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is written over it"):
        hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    lay(ward, sorted(set(IDS) - HELD), held_out=SHARE)
    with pytest.raises(DataError, match="holds no record"):
        hand_out(ward.kit, ward.scenario, tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_the_command_says_what_the_servers_file_needs(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay(ward, IDS, held_out=SHARE)
    scenario = tmp_path / "ward.toml"
    scenario.write_text(scenario_to_toml(ward.scenario))
    words = ["silo", "hold-out", str(ward.kit), str(scenario), str(tmp_path / "h.csv"), "--key-file", str(ward.key)]
    monkeypatch.setattr(sys, "argv", ["fedmodel", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0, err) == (0, "")
    assert 'In server.toml:\n[tables.ward]\ncsv = "h.csv"\nseparator = ";"\n' in out


@pytest.mark.parametrize("now", [{"held_out": SHARE, "person": PERSON | {"form": "text"}}, {"held_out": 0.4}, {}])
def test_by_another_word_than_was_handed_out_nothing_is_read_and_nothing_handed_out(
    ward: Ward, tmp_path: Path, now: dict[str, object]
) -> None:
    """Else persons would train who lie at the server: by another form, or a smaller share, others are held out."""
    lay(ward, IDS, held_out=SHARE)
    before = ages(ward.silo.records().x_NF)
    hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    lay(ward, IDS, **now)
    with pytest.raises(ConfigError, match=r"held_out = 0\.5 of 'ward' was handed out, by column 'patient' in form"):
        ward.silo.records()
    if now:
        with pytest.raises(ConfigError, match="was handed out"):
            hand_out(ward.kit, ward.scenario, tmp_path / "again.csv")
        assert not (tmp_path / "again.csv").exists()
    lay(ward, IDS, held_out=SHARE)
    assert ages(ward.silo.records().x_NF) == before
    hand_out(ward.kit, ward.scenario, tmp_path / "again.csv")
    (ward.kit / HANDED_OUT).write_bytes(b"not ours")
    with pytest.raises(DataError, match="nobody can tell who was handed out"):
        ward.silo.records()


def test_the_word_is_kept_before_the_file_is_there_and_while_no_answer_is_made(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(ward, IDS, held_out=SHARE)
    real, seen = handing_out.add_handed_out, []

    def called(*given: Any) -> None:
        with (ward.kit / "outbox.lock").open("wb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append((tmp_path / "held.csv").exists())
        real(*given)

    monkeypatch.setattr(handing_out, "add_handed_out", called)
    hand_out(ward.kit, ward.scenario, tmp_path / "held.csv")
    assert seen == [False]


def test_no_claim_for_all_that_is_a_silos_stands_beside_exact_figures_of_a_part_of_it(
    ward: Ward, tmp_path: Path
) -> None:
    """Before rows are handed out and after, for a server that asks and in the run; a claim for persons hides others."""
    document = ward.scenario.model_dump(mode="json", exclude_none=True, exclude_unset=True)

    def of(unit: str) -> Silo:
        """As the silo is when it is asked, which reads its law once."""
        privacy = document["privacy"] | {"unit": unit, "max_records": 60}
        scenario = Scenario.model_validate(document | {"privacy": privacy})
        return replace(ward.silo, scenario=scenario)

    rule = r"^\[tables\.ward\] of silo\.toml says held_out, and exact figures .* privacy\.unit = \"client\" hides all"
    lay(ward, IDS)
    assert len(of("client").records()) == 60
    of("client").check_data()
    lay(ward, IDS, held_out=SHARE)
    for refused in (
        of("client").records,
        of("client").check_data,
        lambda: hand_out(ward.kit, of("client").scenario, tmp_path / "held.csv"),
    ):
        with pytest.raises(ConfigError, match=rule):
            refused()
    assert list(tmp_path.glob("held.csv")) == []
    assert not (ward.kit / HANDED_OUT).exists()
    of("person").check_data()
    hand_out(ward.kit, of("person").scenario, tmp_path / "held.csv")
    assert len(of("person").records()) == 2 * len(set(IDS) - HELD)
    lay(ward, IDS)  # rows that were handed out are no less the server's
    with pytest.raises(ConfigError, match=r"held_out = 0\.5 of 'ward' was handed out"):
        of("client").records()
