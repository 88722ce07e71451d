"""The tables of a rehearsal are each entered into its party's own file, and read there as a simulation reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedmodel.config import Scenario, read_scenario, read_server_file, read_silo_file, silo_file_to_toml, to_toml
from fedmodel.config.federation import ServerFile
from fedmodel.data import deployed_records, held_out_records, held_out_table, silo_records, table_source, unread
from fedmodel.errors import ConfigError, DataError
from fedmodel.provision import law_of
from scenarios.deployment.own_tables import lay_tables, own_tables
from scenarios.simulation.simulate import check_scenario

TABLE = """
[data]
source = "table"
name = "ward"
label = "ill"
labels = ["no", "yes"]
person = { column = "patient", form = "digits" }
columns = [{ name = "age", type = "integer", range = [0, 120] }]
csv = { south = { separator = ";" } }
"""
ROWS = {"north": ["07,31,no", "7,40,yes"], "south": ["1;55;no"], "west": ["3,20,yes"], "held-out": ["9,70,no"]}


@pytest.fixture
def scenario(tiny_file: Path, tmp_path: Path) -> Scenario:
    """A scenario of tables, which lie in `own`; of persons with one record each."""
    (tmp_path / "ward.toml").write_text(tiny_file.read_text().partition("[data]")[0] + TABLE)
    (tmp_path / "own").mkdir()
    for name, rows in ROWS.items():
        mark = ";" if name == "south" else ","
        (tmp_path / "own" / f"{name}.csv").write_text("\n".join([mark.join(("patient", "age", "ill")), *rows]) + "\n")
    unit = ["privacy.unit=person", "privacy.max_records=1", "privacy.expected_batch_size=1", "privacy.delta=1e-3"]
    return read_scenario(str(tmp_path / "ward.toml"), unit)


def laid(scenario: Scenario, folder: Path, kits: Path) -> Scenario:
    """Lay tables into kits that have nothing but each party's file."""
    with_tables, places = own_tables(scenario, folder)
    (kits / "server").mkdir(parents=True)
    server = ServerFile(federation="ward", listen="127.0.0.1:9443", hosts=("localhost",))
    (kits / "server" / "server.toml").write_text(to_toml(server))
    for silo in scenario.federation.silos:
        (kits / "silos" / silo).mkdir(parents=True)
        (kits / "silos" / silo / "silo.toml").write_text(silo_file_to_toml(law_of(scenario, silo, bytes(32))))
    lay_tables(scenario, places, kits)
    return with_tables


def test_each_party_reads_by_its_own_file_what_a_simulation_reads(scenario: Scenario, tmp_path: Path) -> None:
    kits = tmp_path / "kits"
    with_tables = laid(scenario, tmp_path / "own", kits)
    assert scenario.data.model_dump(exclude={"folder"}) == with_tables.data.model_dump(exclude={"folder"})
    for silo in scenario.federation.silos:
        home = kits / "silos" / silo
        ours = deployed_records(scenario, read_silo_file(home / "silo.toml"), home, None)
        theirs = silo_records(with_tables, silo)
        assert len(ours) == 1  # of the two of one person, one
        assert np.array_equal(ours.x_NF, theirs.x_NF)
        assert np.array_equal(ours.y_N, theirs.y_N)
    law = read_server_file(kits / "server" / "server.toml")
    source = table_source(scenario.data, law.tables, kits / "server", "server.toml")
    assert np.array_equal(held_out_table(scenario.data, source).x_NF, held_out_records(with_tables).x_NF)


def test_tables_that_no_silo_is_called_by_are_said_once_and_other_files_are_not(
    scenario: Scenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A hospital that the scenario forgot would go missing unnoticed."""
    folder = tmp_path / "own"
    for stray in (".north.csv", "README", "columns.txt"):
        (folder / stray).write_text("")
    with_tables, _ = own_tables(scenario, folder)
    assert caplog.messages == []
    for name in ("east.csv", "North.parquet"):
        (folder / name).write_text("")
    own_tables(scenario, folder)
    told = (
        f"{folder}: beside the silos' tables lies what federation.silos does not name, and nothing of it is read:"
        " North.parquet, east.csv; name it there if it is to train"
    )
    assert caplog.messages == [told]
    assert unread(with_tables) == told
    assert unread(scenario) is None  # which names no folder
    caplog.clear()
    check_scenario(with_tables)
    assert told in caplog.messages


def test_the_scenarios_own_folder_is_taken_where_none_is_given(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = scenario.model_copy(update={"data": scenario.data.model_copy(update={"folder": "own"})})
    assert own_tables(own, None)[1] == own_tables(scenario, Path("own"))[1] == own_tables(scenario, tmp_path / "own")[1]
    with pytest.raises(ConfigError, match=r"is of tables; give --tables DIR with NAME\.csv"):
        own_tables(scenario, None)


def test_a_table_that_is_missing_or_meant_for_nothing_is_refused(
    scenario: Scenario, tiny: Scenario, tmp_path: Path
) -> None:
    (tmp_path / "own" / "held-out.csv").unlink()
    with pytest.raises(DataError, match=r"neither of held-out\.csv and held-out\.parquet there"):
        own_tables(scenario, tmp_path / "own")
    with pytest.raises(ConfigError, match="--tables: scenario 'tiny' has no tables"):
        own_tables(tiny, tmp_path / "own")
    assert own_tables(tiny, None) == (tiny, {})


def test_files_lie_in_a_folder_of_each_party(
    scenario: Scenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = scenario.model_dump(mode="json", exclude_none=True)
    document["data"] = {"source": "json-lines", "name": "notes", "labels": ["no", "yes"], "length": 4, "person": "who"}
    files = Scenario.model_validate(document)
    for at, party in enumerate((*scenario.federation.silos, "held-out")):
        (tmp_path / "notes" / party).mkdir(parents=True)
        line = f'{{"who": "{at}", "text": "{party}", "label": "{("no", "yes")[at % 2]}"}}\n'
        (tmp_path / "notes" / party / "a.jsonl").write_text(line)
    kits = tmp_path / "kits"
    with_files = laid(files, tmp_path / "notes", kits)
    for silo in files.federation.silos:
        home = kits / "silos" / silo
        ours = deployed_records(files, read_silo_file(home / "silo.toml"), home, None)
        theirs = silo_records(with_files, silo)
        assert ours.y_N.tolist() == theirs.y_N.tolist() == [files.federation.silos.index(silo) % 2]
        assert isinstance(ours.x, dict)
        assert isinstance(theirs.x, dict)
        assert np.array_equal(ours.x["tokens"], theirs.x["tokens"])
    law = read_server_file(kits / "server" / "server.toml")
    source = table_source(files.data, law.tables, kits / "server", "server.toml")
    assert held_out_table(files.data, source).y_N.tolist() == held_out_records(with_files).y_N.tolist()
    (tmp_path / "notes" / "east").mkdir()
    own_tables(files, tmp_path / "notes")
    (said,) = caplog.messages
    assert said == (
        f"{tmp_path / 'notes'}: beside the silos' folders lies what federation.silos does not name, and nothing of it"
        " is read: east/; name it there if it is to train"
    )
    shutil.rmtree(tmp_path / "notes" / "held-out")
    with pytest.raises(ConfigError, match=r"has no folder held-out/; where silos are deployed"):
        own_tables(files, tmp_path / "notes")
    with pytest.raises(ConfigError, match=r"is of files; give --tables DIR with a folder NAME/"):
        own_tables(files, None)
