"""The mutation suite: every planted fault is caught by the check that is named for it, and nothing stays planted."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch._inductor.runtime import cache_dir_utils

from clients import carried, hiding, policy
from clients.outbox import Outbox
from clients.probing import Probing
from fedmodel import wire
from fedmodel.audit.gauges import OF_ALL, OF_SILOS
from fedmodel.config import FederationConfig, Scenario
from fedmodel.data import persons, tables
from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Section
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import book_keeping, hooks
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import packing
from fedmodel.learning.jobs import _pipelines, _rank, training
from fedmodel.learning.keeping import Kept
from fedmodel.learning.ranks import Ranks
from fedmodel.ledger import Ledger, Run, Standing
from fedmodel.privacy import release
from fedmodel.privacy.accounting import composition, pld
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.noise import OsNoise
from fedmodel.provision import influence
from scenarios.audit import planning
from scenarios.cli import main
from scenarios.report.page import render
from scenarios.selftest import brought, faults, mutations, selftest
from scenarios.selftest.faults import FAULTS, Fault, Setting
from scenarios.selftest.planting import fresh, replaced
from scenarios.simulation import simulate
from server.exchange import Faults
from server.strategies import KINDS, options_of
from tests.drawing import same_bytes

pytestmark = pytest.mark.usefixtures("same_bytes")

ASKED = (
    "noise-x0.9",
    "noise-x0.5",
    "clip-x2",
    "no-clip",
    "seed-reused",
    "shuffle-for-poisson",
    "wrong-denominator",
    "noise-share-dropped",
    "nan-through-clip",
    "charge-after-release",
    "epsilon-from-looser-q",
    "ghost-clipping-bypassed",
    "own-loss-couples-records",
    "figure-in-a-record",
)
QUICK = (
    "noise-x0.9",
    "no-clip",
    "nan-through-clip, no preflight",
    "noise-share-dropped, fedadam",
    "model-moves-otherwise, fedavg",
    "model-moves-otherwise, fedadam",
    "views-clipped-apart",
    "charge-after-release",
    "own-loss-couples-records",
    "figure-in-a-record",
    "start-forgets-its-cost",
    "charge-given-back",
    "grown-lots-charged-as-the-first",
)
TOUCHED = (
    OsNoise,
    DpSgd,
    BookKeeping,
    book_keeping,
    packing,
    Ledger,
    Run,
    Standing,
    Outbox,
    Probing,
    carried,
    hiding,
    render,
    persons,
    tables,
    _pipelines,
    training,
    training.Answering,
    training.Asking,
    composition,
    pld,
    hooks,
    release,
    carried,
    influence,
    policy,
    FederationConfig,
    Scenario,
    torch.Tensor,
    torch.linalg,
    simulate,
    wire,
    Kept,
    brought,
    brought.Net,
    Ranks,
    _rank._Rank,
)


def named(*names: str) -> list[Fault]:
    return [fault for fault in FAULTS if fault.name in names]


def attributes() -> list[dict[str, Any]]:
    return [dict(vars(owner)) for owner in TOUCHED]


@pytest.fixture(scope="module")
def quick() -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    with same_bytes():
        return selftest.suite(named(*QUICK), said.append), said


def run(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedmodel", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
    return int(ended.value.code or 0)


def check_suite(found: dict[str, Any], planted: list[Fault]) -> None:
    assert [(row["fault"], row["check"]) for row in found["faults"]] == [(one.name, one.check) for one in planted]
    assert [row["fault"] for row in found["faults"] if not row["caught"]] == []
    assert all(row["explanation"] for row in found["faults"])
    assert found["correct"]["passed"]
    assert found["correct"]["failed"] == []
    assert selftest.missed(found) is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_list_has_what_was_asked_for_and_every_check_is_known() -> None:
    assert set(ASKED) <= {fault.name for fault in FAULTS}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    others = {faults.PREFLIGHT, faults.LOWER_BOUND, faults.PAGE_MARKUP, faults.RECORDS_OF_A_PERSON, "accountants"}
    others |= {"accountants_at_extremes", "effective_silos", faults.EARLIER_RUN}
    others |= {faults.DEPLOYED_BASELINE, faults.UNBOUNDED_RELEASE, faults.CHARGE_KEPT, faults.WIRE, faults.CHARGED_RATE}
    others.add(faults.AS_ONE_PROCESS)
    assert {fault.check for fault in FAULTS} <= {*OF_SILOS, *OF_ALL, *others}


def test_faults_are_caught_by_their_named_checks(quick: tuple[dict[str, Any], list[str]]) -> None:
    found, said = quick
    check_suite(found, named(*QUICK))
    assert found["correct"]["gauges"] > 40
    settings = ("full", "adam", "views", "own", "goes-on", "lapsing", "growing")
    assert said == [*(f"correct code, {one}" for one in settings), *QUICK]
    rows = {row["fault"]: row for row in found["faults"]}
    assert "scenarios.selftest.brought:loss' couples records" in rows["own-loss-couples-records"]["explanation"]
    assert "carries a record that answers of its kind do not have" in rows["figure-in-a-record"]["explanation"]
    assert 0.86 < rows["noise-x0.9"]["figure"] < 0.94
    assert rows["no-clip"]["figure"] > 1
    assert "moves the clipped sum" in rows["no-clip"]["explanation"]
    assert rows["charge-after-release"]["figure"] == 4


def test_what_several_processes_do_of_their_own_is_noticed() -> None:
    """Noise in each, a lot of each, and a clip of what each has of a record."""
    planted = named("noise-once-a-process", "lots-drawn-twice", "clip-of-parts, no preflight")
    check_suite(selftest.suite(planted), planted)


def test_persons_that_are_grouped_wrongly_are_noticed() -> None:
    """Split by their spellings, and merged by what their column looks like."""
    planted = [fault for fault in FAULTS if fault.check == faults.RECORDS_OF_A_PERSON]
    found = selftest.suite(planted)
    check_suite(found, planted)
    assert {row["fault"]: row["figure"] for row in found["faults"]} == {"ids-as-spelled": 7, "ids-by-column": 1}


@pytest.mark.slow
def test_every_fault_is_caught_and_correct_code_passes_after_them() -> None:
    found = selftest.suite(FAULTS)
    check_suite(found, list(FAULTS))
    for setting in get_args(Setting):
        assert selftest.trial_of(setting).audited(nullcontext).fired == {}


def test_some_silos_train_and_their_answers_are_lost() -> None:
    scenario = selftest.scenario("dropouts")
    lost = Faults(scenario)
    silos, rounds = scenario.federation.silos, range(1, scenario.rounds)
    halves = [lost.loses(wire.TRAIN, number, silo) for number in rounds for silo in silos]
    assert halves.count("reply") == 2
    assert halves.count("request") == 1
    assert scenario.encryption.secure_aggregation == "on"


def test_each_strategy_of_means_has_a_fault_of_its_model_and_each_other_one_is_refused() -> None:
    followed = {name for name, of in KINDS.items() if not hasattr(of.make(*_made(name)), "combine")}
    assert set(faults.STRATEGIES) == followed
    assert {f"model-moves-otherwise, {name}" for name in followed} <= {fault.name for fault in FAULTS}
    for name in KINDS.keys() - followed:
        with pytest.raises(ConfigError, match=f"{name}' makes of updates something else than their mean, in which an"):
            planning.plan_audit(_made(name)[0])


def _made(name: str) -> tuple[Scenario, Section]:
    """Return a scenario with a strategy, audited and unmasked, with its options."""
    scenario = selftest.scenario("full")
    silos = tuple(f"s{number}" for number in range(1, 6))
    federation = scenario.federation.model_copy(update={"strategy": name, "silos": silos, "min_silos": 5})
    encryption = scenario.encryption.model_copy(update={"secure_aggregation": "off"})
    scenario = scenario.model_copy(update={"federation": federation, "encryption": encryption})
    return scenario, options_of(scenario)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_planted_comes_back_after_an_exception(fault: Fault) -> None:
    before = attributes()
    with pytest.raises(KeyboardInterrupt):
        interrupted(fault, before)
    assert attributes() == before


def interrupted(fault: Fault, before: list[dict[str, Any]]) -> None:
    with fault.plant():
        assert attributes() != before
        raise KeyboardInterrupt


def test_an_attribute_comes_back_where_it_was() -> None:
    class Base:
        name = "base"

    class Derived(Base):
        pass

    with replaced(Derived, "name", "planted"):
        assert Derived.name == "planted"
        assert Base.name == "base"
    assert "name" not in vars(Derived)
    with pytest.raises(AttributeError), replaced(Derived, "gone", 1):
        pass


def test_what_was_found_out_under_a_fault_is_forgotten() -> None:
    scenario = selftest.scenario("full")
    event = DpSgdEvent(2.0, 1.0, 1.0, 4, 20)
    with fresh(), mutations.without_preflight(), mutations.clip_missing():
        _pipelines._preflight_once(scenario.model_dump_json(), event, torch.device("cpu"))
        assert _pipelines._preflight_once.cache_info().currsize == 1
    assert _pipelines._preflight_once.cache_info().currsize == 0


def test_a_fault_that_does_nothing_is_not_caught(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    cache_dir_utils.cache_dir()  # torch's own, which it makes once a process
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    nothing = Fault("nothing", "noise_std", "sampled", nullcontext)
    monkeypatch.setattr(faults, "FAULTS", (nothing,))
    assert run("audit", "selftest", "--json") == 3
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["faults"] == [
        {
            "fault": "nothing",
            "caught": False,
            "check": "noise_std",
            "figure": None,
            "explanation": "noise_std did not fire",
            "also": [],
        }
    ]
    assert found["correct"]["passed"]
    assert "not caught: nothing (noise_std)" in " ".join(printed.err.split())
    assert list(tmp_path.iterdir()) == [tmp_path / "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_interrupted_it_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = attributes()

    def interrupt(*_: object) -> None:
        assert list(tmp_path.iterdir()) != []
        raise KeyboardInterrupt

    with replaced(training.Answering, "check", interrupt):
        assert run("audit", "selftest") == 130
    assert "nothing is left behind" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert attributes() == before


def test_a_check_that_fires_without_the_fault_too_catches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with mutations.noise_times(0.9):
        found = selftest.suite(named("noise-x0.9"))
    assert not found["faults"][0]["caught"]
    assert "without the fault too" in found["faults"][0]["explanation"]
    assert "noise_std" in found["correct"]["failed"]
    assert "correct code does not pass" in str(selftest.missed(found))


def test_a_run_that_does_not_begin_is_told_and_catches_nothing() -> None:
    found = selftest.suite([Fault("broken", "finite", "full", broken)])
    assert not found["faults"][0]["caught"]
    assert "there was nothing to audit" in found["faults"][0]["explanation"]


@contextmanager
def broken() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError

    with replaced(training.Answering, "check", refuse):
        yield


def test_it_prints_a_table_of_80_columns(
    quick: tuple[dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widest = max(FAULTS, key=lambda fault: len(fault.name)).name
    rows = [*quick[0]["faults"], {**quick[0]["faults"][0], "fault": widest, "check": "charged_before_release"}]
    missing = {**rows[0], "fault": "nothing", "caught": False, "explanation": "it did not fire"}
    monkeypatch.setattr(faults, "FAULTS", ())
    monkeypatch.setattr(selftest, "suite", lambda *_: {**quick[0], "faults": [*rows, missing]})
    monkeypatch.setenv("COLUMNS", "80")
    assert run("audit", "selftest") == 3
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    table = [line.split() for line in lines]
    assert any(words[1:4] == ["noise-x0.9", "│", "noise_std"] for words in table)
    assert any(widest in line and "charged_before_release" in line for line in lines)
    assert any("NOT by noise_std" in line for line in lines)
    assert any("nothing: it did not fire" in line for line in lines)


def test_logs_are_silent_meanwhile_and_heard_after(caplog: pytest.LogCaptureFixture) -> None:
    def warn(_: str) -> None:
        logging.getLogger("server").warning("a silo dropped out")

    selftest.suite([], warn)
    with selftest._unlogged():
        warn("")
    assert "dropped out" not in caplog.text
    warn("")
    assert "dropped out" in caplog.text
