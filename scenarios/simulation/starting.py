"""A run that begins from a file: what it begins from is settled before anything is written, and its cost charged on.

    public    its author's word; the run's claim is of the run alone, and the report says whose word it rests on
    of a run  what the file tells of records was paid for by that run. In a simulation its silos' ledgers go on, keys
              and all, so that both runs stand in each of them, under one budget. A deployed silo has one ledger anyway.

Guarantee: `settled` returns a simulation's scenario only if every silo of it that was charged for the earlier run is
named in it, with that run's number; `carry` puts these silos' ledgers, verified, into the new run's folder before the
first of them is opened there; and `check_carried` refuses a folder in which one of them does not hold that run. So no
claim of the new run leaves out what the model it began from had cost at a silo of both.

A silo of the new run that was not charged for the earlier one starts anew. One of the earlier run that is none of the
new one's has no ledger here: that run's own report counts it.

A budget that goes on keeps unit, delta and order. Its cap is what the new scenario says under `[budgets]`, which says
what the earlier one said there unless it says more; without either, it is the least that pays for both runs, since
whoever simulates has set no cap. A higher cap is entered as an override, by name. So where no cap was said, the claim
is of two runs that were decided on in turn by one who may have looked; `fedmodel.ledger.admission` says what an
override makes of a cap.

Does NOT stop anybody from beginning two runs from one: each has a copy of the ledgers, and neither knows the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fedmodel import plans
from fedmodel.config import BudgetConfig, Scenario, StartConfig, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.learning.fitting import check_fits
from fedmodel.learning.starts import START, about, file_of, noise_of, read_start, resolved
from fedmodel.ledger import Ledger, Run, Scope, Standing, verify_ledger
from fedmodel.privacy.events import MOST_EPSILON
from fedmodel.privacy.rounding import raised
from fedmodel.provision import is_kit, read_identity
from fedmodel.provision.simulated import GoesOn
from fedmodel.system.counts import counted
from fedmodel.system.durable import replace_file
from scenarios.runs.ledgers import SiloLedger, ledger_in_run, newest_run, read_ledgers

_HEAD: Final = "ledger.head"
_BY: Final = "fedmodel simulate"
_PROTECTS_NOBODY: Final = (
    "{}: is the model of a run that protects nobody: its noise could be subtracted, or there was none; nothing could be"
    " claimed of a run that begins from it: begin from another file"
)
_WITHOUT_NOISE: Final = (
    "{}: is the model of a run, whose ledgers would go on, and privacy.baseline would undo what was promised in them;"
    " leave model.init or privacy.baseline out, or begin from a public file"
)


@dataclass(frozen=True)
class Carried:
    """One silo's ledger that goes on from an earlier run.

    Attributes:
        ledger: As the earlier run's folder has it, verified.
        run: What it holds of that run.
        scope: The budget of both runs, with the cap that is to hold.
        partial: Whether the silo takes part for as long as its budget pays.
    """

    ledger: SiloLedger
    run: Run
    scope: Scope
    partial: bool

    @property
    def budget(self) -> BudgetConfig:
        """The budget as a silo's law says it."""
        scope = self.scope
        return BudgetConfig(
            unit=scope.unit,
            max_records=None if scope.unit == "record" else scope.max_records,
            delta=scope.delta,
            epsilon=scope.epsilon,
            order=scope.order,
            partial_runs=self.partial,
        )


def settled(scenario: Scenario) -> Scenario:
    """Return a simulation's scenario that says which file it begins from and, of a run, whose ledgers go on.

    Raises:
        ConfigError: When the file is not to be taken (`fedmodel.learning.starts`), is of a run that protects nobody
            (`check_protects`) or whose ledgers are not beside it, or is of a run and this one adds no noise.
        LedgerTampered: When one of these is not as it was written.
    """
    found = resolved(scenario)
    start = found.start
    if start is None or not found.goes_on:
        return found
    check_protects(found)
    if found.privacy.baseline is not None:
        raise ConfigError(_WITHOUT_NOISE.format(start.file))
    earlier, name, held = _of_the_file(start, file_of(start).parent)
    parts = [part for one in held.values() for part in one.standing.runs[name].parts]
    if any(not _may_go_on(found, part.noise_source) for part in parts):
        raise ConfigError(_PROTECTS_NOBODY.format(start.file))
    silos = tuple(silo for silo in found.federation.silos if silo in held)
    if not silos:
        raise ConfigError(
            f"{start.file}: no silo of this scenario was charged for run {name}, which made it; begin from a run of"
            " these silos, or deploy it, where each silo has one ledger"
        )
    settled_on = {"scenario": held[silos[0]].standing.runs[name].scenario, "run": name, "silos": silos}
    for key, value in settled_on.items():
        if getattr(start, key) and getattr(start, key) != value and getattr(scenario.start, key):
            raise ConfigError(f"model.init.{key} is not what follows from {start.file}: it is {value}; leave it out")
    budgets = {silo: cap for silo, cap in earlier.budgets.items() if silo in silos} | found.budgets
    return found.begun(start.model_copy(update=settled_on)).model_copy(update={"budgets": budgets})


def check_protects(scenario: Scenario) -> None:
    """Refuse to begin from a run that protected nobody, as its file says, unless both runs' noise is seeded.

    Raises:
        ConfigError: When it would.
    """
    start = scenario.start
    if start is not None and not _may_go_on(scenario, noise_of(read_start(start))):
        raise ConfigError(_PROTECTS_NOBODY.format(start.file))


def _may_go_on(scenario: Scenario, noise: str | None) -> bool:
    """Whether a run may begin from one with such noise; from one without noise none may, whatever it promises."""
    return noise in ("os", scenario.privacy.noise)


def check_start(scenario: Scenario, *, deployed: bool = False) -> None:
    """Refuse a start that does not fit the scenario's model, or whose cost its budgets could not take on.

    Args:
        scenario: As settled, or resolved for a deployment.
        deployed: Whether each silo has one ledger, its own, that holds what it took part in.

    Raises:
        ConfigError: With what does not fit.
        LedgerTampered: When a ledger that would go on is not as it was written.
    """
    if scenario.start is None:
        return

    data = read_start(scenario.start)
    check_fits(scenario.model, scenario.data.shape, data, str(file_of(scenario.start)))
    if not deployed and scenario.goes_on and scenario.start.run is None:
        raise ConfigError("model.init is of a run, and nothing settled whose ledgers go on; read it with `placed`")
    if deployed and scenario.start.run is not None:
        raise ConfigError("model.init names the ledgers that a simulation goes on with; leave run and silos out of it")
    if deployed:
        check_protects(scenario)
    carried(scenario)


def refuse_rehearsal(scenario: Scenario) -> None:
    """Refuse to rehearse what goes on from a run: a rehearsal's silos are new, and their ledgers know of no run.

    Raises:
        ConfigError: When it would.
    """
    if scenario.goes_on:
        raise ConfigError(
            "model.init is of a run, and a rehearsal makes silos whose ledgers know nothing of it: what it spent would"
            " be forgotten; simulate, or submit it to the federation whose silos took part"
        )


def carry(scenario: Scenario, run_dir: Path) -> dict[str, GoesOn]:
    """Lay out in a new run's folder what it begins from, with the ledgers that go on; call it before kits are made.

    Returns:
        By silo, with what those go on whose ledgers do.

    Raises:
        ConfigError: When the file is another than was settled on, or an earlier kit cannot be read.
        LedgerError: When a ledger is not as it was written, or cannot take its budget's cap.
    """
    if scenario.start is None:
        return {}
    replace_file(run_dir / START, read_start(scenario.start))
    going_on = {}
    for silo, one in carried(scenario).items():
        secret = _secret(_kit(scenario.start, silo))
        _carry_ledger(scenario, run_dir, one, SigningKey(secret))
        going_on[silo] = GoesOn(secret, one.budget)
    return going_on


def carried(scenario: Scenario) -> dict[str, Carried]:
    """Return the ledgers that go on, by silo, each with the budget that is to hold.

    Raises:
        ConfigError: When figures of the two runs cannot be counted in one budget, or the budget does not pay.
        LedgerTampered: When one is not as it was written.
    """
    start = scenario.start
    if start is None or start.run is None:
        return {}
    folder = file_of(start).parent
    _, name, ledgers = _of_the_file(start, folder)
    if name != start.run or not set(start.silos) <= ledgers.keys():
        raise ConfigError(f"{folder}: its ledgers do not hold run {start.run}, which this scenario begins from")
    found = {}
    for silo in start.silos:
        ledger = ledgers[silo]
        _check_identity(start, silo, ledger)
        run = ledger.standing.runs[name]
        scope = _capped(scenario, ledger, ledger.standing.scopes[run.scope])
        found[silo] = Carried(ledger, run, scope, silo in scenario.budgets)
    return found


def check_carried(scenario: Scenario, standings: Mapping[str, Standing]) -> None:
    """Refuse ledgers of a run that do not hold the run that it began from, at the silos that were charged for that.

    Args:
        scenario: As settled.
        standings: By silo.

    Raises:
        LedgerTampered: When one does not; its silo is named.
    """
    start = scenario.start
    for silo in () if start is None else start.silos:
        run = standings[silo].runs.get(str(start.run)) if start is not None and silo in standings else None
        if start is None or run is None or not run.charges or run.scenario != start.scenario:
            raise LedgerTampered(
                f"silo {silo}: its ledger does not hold run {start and start.run}, from whose model this run began and"
                " for which it was charged: what that run spent would be forgotten"
            )
        if run.ended and run.model != start.sha256:
            raise LedgerTampered(
                f"silo {silo}: countersigned run {start.run} for model {run.model[:16]}..., and this run says that it"
                f" began from {str(start.sha256)[:16]}...: it began from something else"
            )


def _of_the_file(start: StartConfig, folder: Path) -> tuple[Scenario, str, dict[str, SiloLedger]]:
    """Return the scenario of the folder that a file lies in, the run that made it, and the ledgers charged for that."""
    if not (folder / "scenario.toml").is_file() or not (folder / "ledgers").is_dir():
        told = about(read_start(start)) or {}
        raise ConfigError(
            f"{start.file}: is the model of a run of scenario {told.get('scenario', '?')[:40]!r}, and that run's"
            " ledgers do not lie beside it, so its cost cannot be charged on; name the file in the run's own folder, or"
            " the folder"
        )
    earlier = read_scenario(str(folder / "scenario.toml"))
    ledgers = read_ledgers(folder, earlier, {})
    countersigned = {
        name for one in ledgers.values() for name, run in one.standing.runs.items() if run.model == start.sha256
    }
    newest = newest_run(earlier, {silo: (one.standing, one.entries) for silo, one in ledgers.items()})
    name = min(countersigned) if countersigned else newest
    ended = any(run.ended for one in ledgers.values() if (run := one.standing.runs.get(str(name))) is not None)
    if name is None or (ended and not countersigned):
        raise ConfigError(
            f"{start.file}: no ledger beside it countersigned it as its run's model, so it was changed since or is"
            " another run's; begin from the model that the run left"
        )
    _check_unaudited(folder, ledgers)
    return (
        earlier,
        name,
        {silo: one for silo, one in ledgers.items() if name in one.standing.runs and one.standing.runs[name].charges},
    )


def _check_unaudited(folder: Path, ledgers: Mapping[str, SiloLedger]) -> None:
    """Refuse to go on from an audited run: its ledgers' plan and result are of its own canaries."""
    if any(True for ledger in ledgers.values() for entry in ledger.audits() if "plan" in entry.content):
        raise ConfigError(
            f"{folder}: is of an audited run, which had canaries among its records; simulate its scenario without an"
            " audit, and begin from that"
        )


def _check_identity(start: StartConfig, silo: str, ledger: SiloLedger) -> None:
    """Refuse a ledger whose key is not at hand: nobody else can go on with it."""
    kit = _kit(start, silo)
    if not is_kit(kit) or not (kit / "identity.key").is_file():
        raise ConfigError(
            f"{kit}: the key of silo {silo!r}, which signs its ledger, is not here, so the ledger cannot go on; begin"
            " from the folder that `fedmodel simulate` made, with its silos"
        )
    if SigningKey(_secret(kit)).public != ledger.standing.key:
        raise LedgerTampered(f"{kit}: its key is not the one that silo {silo}'s ledger is signed with")


def _capped(scenario: Scenario, ledger: SiloLedger, scope: Scope) -> Scope:
    """Return a budget that goes on, with the cap that is to hold."""
    silo = ledger.silo
    plan = scenario.plan(silo)
    asked = (plan.data, plan.unit, plan.max_records, plan.delta)
    if (scope.data, scope.unit, scope.max_records, scope.delta) != asked:
        raise ConfigError(
            f"silo {silo!r}: the run that this begins from was charged to {scope.name} at delta {scope.delta}, and"
            f" this one asks for data set {plan.data!r}, unit {plan.unit} of at most"
            f" {counted(plan.max_records, 'record')} and delta {plan.delta}; figures of two kinds are never added:"
            " make them alike"
        )
    said = scenario.budgets.get(silo)
    if said is not None:
        if said < scope.epsilon:
            raise ConfigError(
                f"budgets.{silo} = {said} is under the {scope.epsilon} that its ledger goes on with; a budget that"
                " goes on is not lowered"
            )
        return replace(scope, epsilon=float(said))
    need = ledger.standing.held(scope.name) + sum(map(scope.cost, plans.planned_parts(scenario, silo)))
    return scope if scope.cap >= need else replace(scope, epsilon=_least_cap(scope, need, silo))


def _least_cap(scope: Scope, need: int, silo: str) -> float:
    """Return the least epsilon, of four decimals, whose room is as much as is needed, in millionths."""
    low, high = scope.epsilon, float(MOST_EPSILON)
    if replace(scope, epsilon=high).cap < need:
        raise ConfigError(f"silo {silo!r}: both runs together would spend over epsilon {MOST_EPSILON}; take more noise")
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if replace(scope, epsilon=middle).cap >= need else (middle, high)
    return min(raised(high), float(MOST_EPSILON))


def _carry_ledger(scenario: Scenario, run_dir: Path, one: Carried, key: SigningKey) -> None:
    """Copy a ledger with its head, verify the copy, and enter the cap that is to hold."""
    start, silo = scenario.start, one.ledger.silo
    if start is None:
        return
    source, path = ledger_in_run(file_of(start).parent, silo), ledger_in_run(run_dir, silo)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    kit = run_dir / "silos" / silo
    kit.mkdir(parents=True, exist_ok=True)
    for end in ("", "-wal"):
        if source.with_name(source.name + end).exists():
            shutil.copyfile(source.with_name(source.name + end), path.with_name(path.name + end))
    head = (_kit(start, silo) / _HEAD).read_bytes()
    replace_file(kit / _HEAD, head)
    path.chmod(0o600)
    verify_ledger(path, key.public, [head])
    before = one.ledger.standing.scopes[one.scope.name]
    if one.scope.epsilon != before.epsilon:
        why = f"goes on from run {start.run} of scenario {str(start.scenario)[:16]}..., to scenario {scenario.name}"
        with Ledger(path, silo, key, kit / _HEAD) as ledger:
            ledger.override(one.scope.name, one.scope.epsilon, why, _BY)


def _kit(start: StartConfig, silo: str) -> Path:
    return file_of(start).parent / "silos" / silo


def _secret(kit: Path) -> bytes:
    """Return the seed of a simulated party's key. Sensitive."""
    read_identity(kit)  # says what is wrong with it
    return bytes.fromhex((kit / "identity.key").read_text(encoding="ascii").strip())
