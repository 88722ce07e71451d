"""A silo answers a job besides training once it was reserved and charged, to its own part; and else nothing leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from clients.silo import Silo
from fedmodel import plans, wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records, silo_records
from fedmodel.ledger import Standing, verify_ledger
from fedmodel.privacy.mechanisms.gaussian import GaussianEvent
from fedmodel.privacy.primitives import Parts
from fedmodel.provision import read_kit, scenario_hash
from tests.clients.test_client_app import ask, joined, model
from tests.clients.test_one_charge_one_release import law
from tests.fakes import FaultyGrid

NAME = "label-counts"
ZEROS = np.zeros(2, dtype=np.float32)


@pytest.fixture
def counting(tiny_file: Path) -> Scenario:
    """Two rounds of training, and the counts in a third."""
    return read_scenario(str(tiny_file), [f"besides.{NAME}.noise_multiplier=4.0", f"besides.{NAME}.bound=50.0"])


def standing(folder: Path) -> Standing:
    return verify_ledger(folder / "ledgers" / "north.sqlite").standing


def charges(folder: Path) -> list[tuple[int, int]]:
    """Return round and part of everything that was charged."""
    return [(one.round, one.part) for run in standing(folder).runs.values() for one in run.charges.values()]


def counted(grid: FaultyGrid, number: int = 3, job: str = NAME, vector: np.ndarray = ZEROS) -> Message:
    return ask(grid, wire.train_request(wire.TrainRequest(number, vector, job=job)), wire.TRAIN)


def log(folder: Path) -> str:
    return (folder / "logs" / "north.log").read_text(encoding="utf-8")


def test_joining_reserves_every_job_as_a_part_of_its_own(counting: Scenario, tmp_path: Path) -> None:
    joined(counting, tmp_path)
    (run,) = standing(tmp_path).runs.values()
    assert run.parts == plans.planned_parts(counting, "north")
    assert [part.mechanism for part in run.parts] == ["dp-sgd", "gaussian"]


def test_a_job_is_charged_to_its_own_part_before_records_are_read_and_once(
    counting: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, seen = joined(counting, tmp_path), []

    def records(silo: Silo) -> Records:
        seen.append(charges(tmp_path))
        return silo_records(silo.scenario, silo.name)

    monkeypatch.setattr(Silo, "records", records)
    first = wire.read_train_reply(counted(grid))
    assert seen == [[(3, 1)]]
    assert first.charged == plans.planned_parts(counting, "north")[1]
    again = wire.read_train_reply(counted(grid))
    assert again.update_P.tobytes() == first.update_P.tobytes()
    assert charges(tmp_path) == [(3, 1)]


@pytest.mark.parametrize(
    ("number", "job", "why"),
    [
        (3, "label-count", "unknown job 'label-count'; did you mean 'label-counts'?"),
        (3, "os", "unknown job 'os'; known: label-counts, training"),
        (3, "training", "round 3 is asked to be of job 'training', and by the scenario it is of 'label-counts'"),
        (2, NAME, "round 2 is asked to be of job 'label-counts', and by the scenario it is of 'training'"),
        (4, NAME, "round 4 is past the 3 of the scenario"),
    ],
)
def test_a_job_that_is_not_the_rounds_is_refused_and_nothing_charged(
    number: int, job: str, why: str, counting: Scenario, tmp_path: Path
) -> None:
    grid = joined(counting, tmp_path)
    assert counted(grid, number, job).has_error()
    assert charges(tmp_path) == []
    assert why in log(tmp_path)


def test_a_job_that_the_scenario_does_not_list_is_no_round_of_it(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    assert counted(grid, number=3).has_error()
    assert counted(grid, number=2).has_error()
    assert charges(tmp_path) == []


def test_a_scenario_with_an_unknown_job_reserves_nothing(tiny_file: Path, tmp_path: Path) -> None:
    unknown = ["besides.label-sums.noise_multiplier=4.0", "besides.label-sums.bound=5.0"]
    grid = FaultyGrid(read_scenario(str(tiny_file), unknown), tmp_path)
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "config-refused"
    assert not (tmp_path / "ledgers").exists()
    assert "unknown job 'label-sums'; did you mean 'label-counts'?" in log(tmp_path)


@pytest.mark.parametrize("reserved", ["nothing besides", "another noise"])
def test_a_job_that_was_not_reserved_as_the_scenario_asks_is_refused(
    reserved: str, counting: Scenario, tmp_path: Path
) -> None:
    """The ledger has the run, of this very scenario, and another part or none beside it."""
    grid = FaultyGrid(counting, tmp_path)
    folder = tmp_path / "silos" / "north"
    silo = Silo("north", counting, str(grid.run.run_id), "cpu", tmp_path, folder)
    plan, counts = plans.planned_parts(counting, "north")
    besides = () if reserved == "nothing besides" else (replace(counts, noise_multiplier=40.0),)
    with silo.ledger() as ledger:
        silo.begin_outbox(ledger)
        silo.reserve(ledger, plan, besides=besides)
    assert counted(grid).has_error()
    assert ask(grid, wire.train_request(wire.TrainRequest(1, model(counting))), wire.TRAIN).has_error()
    assert charges(tmp_path) == []
    assert "what was not reserved is not answered" in log(tmp_path)
    assert scenario_hash(counting).hex() in read_kit(folder).law.scenarios


def test_a_job_whose_event_does_not_cover_what_it_releases_is_refused_and_nothing_charged(
    counting: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cheaper(self: GaussianEvent) -> Parts:
        return tuple((part._replace(noise=2 * part.noise), count) for part, count in real(self))  # type: ignore[union-attr]

    real = GaussianEvent.parts
    monkeypatch.setattr(GaussianEvent, "parts", cheaper)
    grid = joined(counting, tmp_path)
    assert wire.refusal_code(counted(grid).error) == "preflight-refused"
    assert charges(tmp_path) == []
    assert "charges for 0 of them; nothing was trained" in log(tmp_path)


def test_a_question_that_says_something_is_refused_before_the_charge(counting: Scenario, tmp_path: Path) -> None:
    grid = joined(counting, tmp_path)
    assert counted(grid, vector=np.array([0.0, 1.0], dtype=np.float32)).has_error()
    assert charges(tmp_path) == []


def test_a_law_that_does_not_name_the_mechanism_keeps_the_silo_out(counting: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(counting, tmp_path)
    law(tmp_path, mechanisms=["dp-sgd"])
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "policy-refused"
    assert not (tmp_path / "ledgers").exists()
    assert "mechanism 'gaussian' is none of this silo's: dp-sgd" in log(tmp_path)


def test_a_law_that_changes_after_joining_stops_the_job(counting: Scenario, tmp_path: Path) -> None:
    grid = joined(counting, tmp_path)
    law(tmp_path, least_noise_multiplier=4.1)
    assert wire.refusal_code(counted(grid).error) == "policy-refused"
    assert charges(tmp_path) == []
