"""Does the audit find what it is for? Each fault of a list is planted in the real code of a real run, and audited.

A fault counts as caught only if the check that is named for it fires with the fault planted, and does not fire in the
same run without it. That an audit passes correct code says little by itself; that it passes correct code and none of
these says that its checks can fail.

Runs are small, made of synthetic records, and in temporary folders. Noise is the operating system's, so figures differ
from one run to the next; checks are held to levels at which chance has no say: gauges to 10^-6, and the guesses to
where both errors lie more than four standard deviations off.

Does NOT say that an audit finds every fault: it finds these, of at least this size, where canaries are.
"""

from __future__ import annotations

import logging
import math
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.errors import FedmodelError, PrivacyError, ProtocolError
from fedmodel.kinds import own_code
from scenarios.audit import evaluate, planning
from scenarios.runs import audit_entries, inspection
from scenarios.selftest import brought
from scenarios.selftest.baseline_check import bounded, let_in
from scenarios.selftest.faults import (
    AS_ONE_PROCESS,
    CHARGE_KEPT,
    CHARGED_RATE,
    DEPLOYED_BASELINE,
    EARLIER_RUN,
    LOWER_BOUND,
    PAGE_MARKUP,
    PREFLIGHT,
    RECORDS_OF_A_PERSON,
    UNBOUNDED_RELEASE,
    WIRE,
    Fault,
    Setting,
)
from scenarios.selftest.lapse_check import given_back
from scenarios.selftest.lots_check import charged_less
from scenarios.selftest.page_check import brought_by_a_picture
from scenarios.selftest.persons_check import misgrouped
from scenarios.selftest.planting import Planted, fresh
from scenarios.selftest.processes_check import unlike_one
from scenarios.selftest.start_check import forgotten
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate

_SCENARIO: Final = """
name = "selftest"
summary = "a small run to plant faults in"
rounds = 4
seed = 9

[federation]
silos = ["s1", "s2", "s3"]
min_silos = 2

[encryption]
secure_aggregation = "simulated"
bound = 16.0

[model]
kind = "mlp"
hidden = [4]

[training]
loss = "cross-entropy"
optimizer = "sgd"
learning_rate = 0.5
local_steps = 1
gradients = "book-keeping"    # what "auto" takes here; unnamed, a fault in it would be stepped round

[privacy]
unit = "record"
noise_multiplier = 2.0
delta = 1e-3
max_grad_norm = 1.0
sample_rate = 1.0
expected_batch_size = 20

[data]
source = "synthetic"
records = 150
features = 4
held_out = 0.2
reference_range = [-2.0, 2.0]

[data.partition]
size_concentration = 1000.0
label_concentration = 100.0
min_records = 25

[audit]
canaries = "probe"
count = 600
"""
_DIFFERENT: Final[Mapping[Setting, Mapping[str, Mapping[str, Any] | None]]] = {
    "full": {},
    "adam": {
        "federation": {"strategy": "fedadam", "strategy_options": {"eta": 0.05}},
        "audit": {"count": 200},
    },
    "avgm": {"federation": {"strategy": "fedavgm"}, "audit": {"count": 200}},
    "yogi": {"federation": {"strategy": "fedyogi", "strategy_options": {"eta": 0.05}}, "audit": {"count": 200}},
    "adagrad": {"federation": {"strategy": "fedadagrad", "strategy_options": {"eta": 0.05}}, "audit": {"count": 200}},
    "views": {"data": {"augment": {"noise": 0.1, "views": 4}}, "audit": {"count": 200}},
    "own": {
        "": {"metrics": [f"{brought.__name__}:farthest"]},
        "model": {"use": f"{brought.__name__}:Net"},
        "training": {"loss": f"{brought.__name__}:loss", "gradients": "book-keeping"},
        "data": {
            "use": f"{brought.__name__}:records",
            "task": "regression",
            "target_range": [-2.0, 2.0],
            "held_out": 0.2,
            "partition": {"kind": "iid"},
        },
        "audit": {"count": 200},
    },
    "bf16": {"training": {"precision": "bf16"}, "audit": {"count": 60}},
    "stopped": {"": {"stop_below_loss": 1e9}, "audit": {"count": 200}},
    "sampled": {
        "training": {"local_steps": 10, "class_weights": [1.0, 9.0]},
        "privacy": {"sample_rate": 0.25},
        "audit": {"count": 200},
    },
    "dropouts": {
        "": {"rounds": 5},
        "training": {"momentum": 0.5, "keep_optimizer_state": True},
        "federation": {"silos": ["s1", "s2", "s3", "s4"], "min_silos": 3},
        "encryption": {"secure_aggregation": "on", "colluding": 1, "window": 3},
        "faults": {"train": 0.15},
        "audit": {"count": 60},
    },
    "page": {"audit": {"count": 60}},
    "goes-on": {"": {"rounds": 1}},
    "baseline": {},
    "lapsing": {},
    "growing": {
        "": {"rounds": 2},
        "training": {"local_steps": 2, "lots": [{"from_round": 2, "times": 4.0}]},
        "privacy": {"sample_rate": 0.25, "expected_batch_size": 5},
        "audit": None,
    },
    "tables": {},
    "processes": {
        "training": {"max_physical_batch": 24},
        "data": {"augment": {"noise": 0.5, "views": 3}},
        "privacy": {"noise": "seeded-unsafe"},
        "audit": None,
    },
}


@dataclass(frozen=True)
class Fired:
    """What a check found.

    Attributes:
        figure: What was measured; None where it is no finite number.
        explanation: A sentence.
    """

    figure: float | None
    explanation: str


@dataclass(frozen=True)
class Audited:
    """What an audit of one run said.

    Attributes:
        fired: The checks that fired, by name.
        gauges: How many were measured.
        failure: Why there was nothing to audit, where there was not.
    """

    fired: Mapping[str, Fired]
    gauges: int
    failure: str | None = None


def suite(faults: Sequence[Fault], watching: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Audit correct code, and then code with each fault.

    Args:
        faults: `FAULTS`, or any.
        watching: Told what is audited next.

    Returns:
        `faults`, a row each with `fault`, `caught`, `check`, `figure`, `explanation` and `also`, which other checks
        fired; `correct`, with `passed`, `gauges` and the names of those that `failed`; and `seconds`.
    """
    started = time.monotonic()
    with _unlogged():
        trials = {name: trial_of(name) for name in dict.fromkeys(fault.setting for fault in faults)}
        correct: dict[Setting, Audited] = {}
        for name, trial in trials.items():
            watching(f"correct code, {name}")
            correct[name] = trial.audited(nullcontext)
        rows = []
        for fault in faults:
            watching(fault.name)
            rows.append(_row(fault, trials[fault.setting].audited(fault.plant), correct[fault.setting]))
    failed = sorted({check for one in correct.values() for check in one.fired})
    failed += [one.failure for one in correct.values() if one.failure is not None]
    return {
        "faults": rows,
        "correct": {
            "passed": not failed,
            "gauges": sum(one.gauges for one in correct.values()),
            "failed": failed,
        },
        "seconds": round(time.monotonic() - started, 1),
    }


def audits(faults: Sequence[Fault]) -> int:
    """Return how many runs the suite audits."""
    return len(faults) + len({fault.setting for fault in faults})


def missed(found: Mapping[str, Any]) -> str | None:
    """Return what is wrong with what `suite` found, in a sentence, or None where nothing is."""
    missing = [f"{row['fault']} ({row['check']})" for row in found["faults"] if not row["caught"]]
    wrong = [f"not caught: {', '.join(missing)}"] if missing else []
    if not found["correct"]["passed"]:
        wrong.append(f"correct code does not pass {', '.join(found['correct']['failed'])}")
    return "; ".join(wrong) or None


def scenario(setting: Setting) -> Scenario:
    """Return the scenario of a small run."""
    document = tomllib.loads(_SCENARIO)
    for section, values in _DIFFERENT[setting].items():
        if values is None:
            del document[section]
            continue
        chosen = document.setdefault(section, {}) if section else document
        if "use" in values:  # a user's own stands in place of what is on board
            chosen.clear()
        chosen.update(values)
    return Scenario.model_validate(document)


def trial_of(setting: Setting) -> Trial | Reading | GoingOn | LeavingOut | Lapsing | Growing | Several:
    """Return what faults of a setting are tried in."""
    if setting == "goes-on":
        return GoingOn(scenario(setting).model_copy(update={"audit": None}))
    if setting == "baseline":
        return LeavingOut(scenario(setting))
    if setting == "lapsing":
        return Lapsing(scenario(setting))
    if setting == "growing":
        return Growing(scenario(setting))
    if setting == "processes":
        return Several(scenario(setting))
    return Reading() if setting == "tables" else Trial(setting)


@dataclass(frozen=True)
class GoingOn:
    """A run and one that begins from its model, run any number of times."""

    scenario: Scenario

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Run both with something planted. Whatever was planted is gone when this returns or raises."""
        with TemporaryDirectory(prefix="fedmodel-selftest-") as folder, fresh(), plant():
            try:
                told = forgotten(Path(folder), self.scenario)
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")
        return Audited({} if told is None else {EARLIER_RUN: Fired(None, told)}, 1)


@dataclass(frozen=True)
class LeavingOut:
    """A run without noise, asked for and charged any number of times, and run never."""

    scenario: Scenario

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Ask with something planted. Whatever was planted is gone when this returns or raises."""
        with TemporaryDirectory(prefix="fedmodel-selftest-") as folder, fresh(), plant():
            try:
                told = {
                    DEPLOYED_BASELINE: let_in(self.scenario),
                    UNBOUNDED_RELEASE: bounded(Path(folder), self.scenario),
                }
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")
        return Audited({check: Fired(None, said) for check, said in told.items() if said is not None}, 2)


@dataclass(frozen=True)
class Lapsing:
    """A ledger in which a reservation is past its time, any number of times."""

    scenario: Scenario

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Ask it for another run with something planted. Whatever was planted is gone when this returns or raises."""
        with TemporaryDirectory(prefix="fedmodel-selftest-") as folder, fresh(), plant():
            told = given_back(Path(folder), self.scenario)
        return Audited({} if told is None else {CHARGE_KEPT: Fired(None, told)}, 1)


@dataclass(frozen=True)
class Growing:
    """A run whose lots grow, run any number of times."""

    scenario: Scenario

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Run it with something planted. Whatever was planted is gone when this returns or raises."""
        with TemporaryDirectory(prefix="fedmodel-selftest-") as folder, fresh(), plant():
            try:
                told = charged_less(Path(folder), self.scenario)
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")
        return Audited({} if told is None else {CHARGED_RATE: Fired(None, told)}, 1)


@dataclass(frozen=True)
class Several:
    """A round of one silo in several processes, any number of times."""

    scenario: Scenario

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Train with something planted. Whatever was planted is gone when this returns or raises."""
        with fresh(), plant():
            try:
                refused, differs = unlike_one(self.scenario)
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")
        told = {PREFLIGHT: refused, AS_ONE_PROCESS: differs}
        return Audited({check: Fired(None, said) for check, said in told.items() if said is not None}, 1)


class Reading:
    """Tables of persons, written and read any number of times."""

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Read them with something planted. Whatever was planted is gone when this returns or raises."""
        with TemporaryDirectory(prefix="fedmodel-selftest-") as folder, fresh(), plant():
            try:
                wrong = misgrouped(Path(folder), tomllib.loads(_SCENARIO))
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")
        if not wrong:
            return Audited({}, 1)
        told = f"of {wrong} persons more or fewer records are left than the unit has"
        return Audited({RECORDS_OF_A_PERSON: Fired(wrong, told)}, 1)


class Trial:
    """A small run, checked and planned once, to be run and audited any number of times."""

    def __init__(self, setting: Setting) -> None:
        self._shows_a_page = setting == "page"
        with own_code.open_meanwhile():
            self._scenario = placed(scenario(setting))
            self._parameters = check_scenario(self._scenario)
        self._plan = planning.plan_audit(self._scenario)

    def audited(self, plant: Callable[[], Planted]) -> Audited:
        """Run it with something planted, and audit it. Whatever was planted is gone when this returns or raises."""
        with (
            TemporaryDirectory(prefix="fedmodel-selftest-") as folder,
            own_code.open_meanwhile(),
            fresh(),
            plant(),
        ):
            try:
                with run_folder(self._scenario, Path(folder) / "run") as run_dir:
                    return self._audited(run_dir)
            except FedmodelError as error:
                return Audited({}, 0, f"there was nothing to audit: {error}")

    def _audited(self, run_dir: Path) -> Audited:
        entered = partial(audit_entries.enter_plan, self._plan, run_dir)
        try:
            simulate(self._scenario, self._parameters, "in-process", "cpu", run_dir, nullcontext(), entered)
        except FedmodelError:
            # A fault may leave no round whole; what silos released until then is audited all the same.
            refused = _preflight(self._scenario, run_dir)
            if refused is not None:
                return Audited({PREFLIGHT: refused}, 0)
            if not any(run_dir.glob("silos/*/audit/release-*.npz")):
                raise
        audit_entries.enter_seen(run_dir)
        found = _read(evaluate.evaluate(self._scenario, run_dir))
        if self._shows_a_page and (brought := brought_by_a_picture(run_dir)):
            told = f"{brought} elements stand on the report's page that a picture brought, where a picture is an image"
            return replace(found, fired={**found.fired, PAGE_MARKUP: Fired(brought, told)})
        if kept := _kept_in(self._scenario, run_dir):
            found = replace(found, fired={**found.fired, WIRE: kept})
        return found


def _preflight(scenario: Scenario, run_dir: Path) -> Fired | None:
    """Return why every silo refused to train, with nothing charged to any; None where one did not."""
    reasons = _reasons(scenario, run_dir, PrivacyError)
    for silo in scenario.federation.silos:
        ledger = inspection.verify(inspection.LedgerFiles.of(run_dir / "ledgers" / f"{silo}.sqlite"), [], None)
        if ledger.standing.charged:
            return None
    if not all(reasons):
        return None
    moved = re.search(r"by ([0-9.e+-]+|nan|inf) times the clip", reasons[0])
    return Fired(None if moved is None else _finite(float(moved[1])), reasons[0])


def _kept_in(scenario: Scenario, run_dir: Path) -> Fired | None:
    """Return why every silo let no answer of its own leave once it had trained; None where one did."""
    reasons = [told for told in _reasons(scenario, run_dir, ProtocolError) if "did not leave" in told]
    return Fired(None, reasons[0]) if len(reasons) == len(scenario.federation.silos) else None


def _reasons(scenario: Scenario, run_dir: Path, kind: type[FedmodelError]) -> list[str]:
    """Return why each silo, by its own log, first refused to train with an error of a kind; empty where it did not."""
    reasons = []
    for silo in scenario.federation.silos:
        log = run_dir / "logs" / f"{silo}.log"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        found = re.search(rf"train: {kind.__name__}: (.+)", text)
        reasons.append("" if found is None else found[1])
    return reasons


def _read(found: Mapping[str, Any]) -> Audited:
    """Return what an audit found, by check: of gauges of one name the one that is farthest out."""
    fired: dict[str, Fired] = {}
    guesses = found["guesses"]
    if guesses["correct"] >= guesses["needed"]:
        told = f"{guesses['correct']} of {guesses['made']} guesses were right, where {guesses['needed']} refute"
        fired[LOWER_BOUND] = Fired(guesses["correct"], told)
    for one in sorted(found["gauges"], key=_distance):
        if not one["passed"]:
            fired[one["name"]] = Fired(one["measured"], one["explanation"])
    return Audited(fired, len(found["gauges"]))


def _distance(gauge: Mapping[str, Any]) -> float:
    """Return how far a gauge's figure is from the middle of its interval, in halves of the interval."""
    measured, low, high = (gauge[name] for name in ("measured", "low", "high"))
    if measured is None or low is None or high is None:
        return math.inf
    return float(abs(2 * measured - low - high) / max(high - low, 1e-300))


def _row(fault: Fault, planted: Audited, correct: Audited) -> dict[str, Any]:
    """Return a fault's row."""
    fired = planted.fired.get(fault.check)
    if fired is None:
        others = f"; {', '.join(sorted(planted.fired))} did" if planted.fired else ""
        told = planted.failure or f"{fault.check} did not fire{others}"
    elif fault.check in correct.fired:
        told = f"{fault.check} fires without the fault too: {correct.fired[fault.check].explanation}"
    else:
        told = fired.explanation
    return {
        "fault": fault.name,
        "caught": fired is not None and fault.check not in correct.fired,
        "check": fault.check,
        "figure": None if fired is None else fired.figure,
        "explanation": told,
        "also": sorted(planted.fired.keys() - {fault.check}),
    }


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep what runs log to themselves: that a planted fault made silos refuse is no news to anybody."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
