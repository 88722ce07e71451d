"""One simulated run: check everything, make the run's folder, run an engine, and sum up from what it left on disk.

Nothing is written before every check has passed. The summary is derived from the folder (metrics, ledgers), the same
way for every engine; each silo's epsilon is replayed from its own ledger, not from what it told the server, or from the
book of a run that kept no ledgers.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedmodel import plans
from fedmodel.config import Scenario, scenario_to_toml
from fedmodel.data.sizes import far_from_divisors, over_delta, under_a_lot
from fedmodel.errors import ConfigError, DataError, FedmodelError, ProtocolError
from fedmodel.kinds import own_code
from fedmodel.privacy import accounting
from fedmodel.privacy.events import LEAST_NOISE
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.rounding import up
from fedmodel.provision import SIMULATED, check_levels, provision, provision_server, scenario_policy
from fedmodel.system.durable import failed, replace_file
from scenarios.runs.event_book import rows_from_book
from scenarios.runs.ledgers import ledger_in_run
from scenarios.runs.summary import read_metrics, rows_from_ledgers, sum_up
from scenarios.simulation.causes import causes_told
from scenarios.simulation.engines import Engine, Simulation, engine_of
from scenarios.simulation.resuming import begun_in
from scenarios.simulation.starting import carry, check_start, settled
from server.journal import forget_all

# Four bytes each stay under the 2 GB that a message of Flower's protocol buffers can hold.
_MOST_PARAMETERS: Final = 500_000_000

_log = logging.getLogger(__name__)


def placed(scenario: Scenario, base: Path | None = None) -> Scenario:
    """Return a scenario whose folder of tables, if it has one, is said from the root: engines work in other folders.

    It begins at `base`, or in the folder that this process works in. Where the run begins from a file, that is settled
    here (`scenarios.simulation.starting.settled`), and so is what a record of a user's own is (`fedmodel.data.own`).
    """
    from fedmodel.data import settled as settled_data

    scenario = settled_data(settled(scenario))
    return scenario.model_copy(update={"data": scenario.data.under(base or Path.cwd())})


def check_scenario(scenario: Scenario, *, deployed: bool = False) -> int:
    """Refuse a scenario that could not run, before anything is written.

    Args:
        scenario: The one to check.
        deployed: Whether silos have tables of their own, so that nobody here knows, or may know, how many records
            one holds; what is on board is dealt out in a deployment too, and is checked the same way.

    Returns:
        The number of the model's trainable parameters.

    Raises:
        ConfigError: When the strategy, a job, the loss, a figure or the kind of gradients is not known; a figure fails;
            the model, a job or the class weights do not fit the data; a model of the user's own cannot be had; delta is
            too large for a silo; secure aggregation could hide nothing, or nothing but one update; when the file that
            it begins from does not fit, or its cost cannot be charged on; or when steps would be rounded away on the
            first weights.
        DataError: When a silo holds fewer records than an expected lot, or data cannot be loaded and dealt.
        PrivacyError: When the model or its loss cannot be private, or cannot be trained on records of such a shape.
    """
    from fedmodel.data import check_read_by_silos, held_out_records, silo_records, unread
    from fedmodel.learning.checked_figures import check_figures
    from fedmodel.learning.devices import use_device
    from fedmodel.learning.gradients import kind
    from fedmodel.learning.job_names import check_jobs
    from fedmodel.learning.jobs import words_asked
    from fedmodel.learning.models import parameters_of, training_losses
    from fedmodel.learning.own_models import check_own_model
    from fedmodel.learning.pattern import check_pattern
    from fedmodel.learning.refusals import check_model
    from fedmodel.learning.tasks import task_of
    from scenarios.simulation.first_step import check_first_step
    from server.strategies import check_strategy, strategy_of

    if deployed:
        check_read_by_silos(scenario.data)
    strategy_of(scenario)
    check_jobs(scenario.besides)
    for key, use in scenario.own_code.items():
        own_code.resolve(use, key)
    shape = scenario.data.shape
    check_own_model(scenario.model, shape)
    parameters = parameters_of(scenario.model, shape)
    check_strategy(scenario, parameters)
    check_pattern(scenario, parameters)
    training_losses(scenario.training, shape)
    for name in scenario.metrics:
        if name not in scenario.own_code.values():
            task_of(shape).figure(name)
    for job in scenario.besides:
        try:
            words_asked(scenario, job)
        except ProtocolError as error:
            raise ConfigError(f"besides.{job}: {error} (the task is {shape.task}); leave it out") from None
    if scenario.data.augment is not None:
        scenario.data.augment.of(shape)
    kind(scenario.training.gradients)
    if parameters > _MOST_PARAMETERS:
        raise ConfigError(
            f"the model would have {parameters:,} parameters, more than the {_MOST_PARAMETERS:,} that fit into one"
            " message; use fewer or narrower layers"
        )
    check_model(scenario, use_device("cpu", scenario.training.threads))
    check_figures(scenario)
    if scenario.encryption.secure_aggregation != "off":
        quantizer = scenario_policy(scenario).quantizer
        for silo in scenario.federation.silos:
            check_levels(scenario, silo, plans.noise_multiplier(scenario.plan(silo)), quantizer)
    is_elsewhere = deployed and scenario.data.is_own
    if not is_elsewhere:
        held_out_records(scenario)
        if (beside := unread(scenario)) is not None:
            _log.warning("%s", beside)
    check_start(scenario, deployed=deployed)
    check_first_step(scenario)
    sized = list[tuple[SiloPlan, int]]()
    for silo in scenario.federation.silos:
        plan = scenario.plan(silo)
        if not is_elsewhere:
            sized.append((plan, len(silo_records(scenario, silo))))
            _check_size(scenario, *sized[-1])
        _check_floor(scenario, plan)
        if plan.noise_multiplier is not None and not math.isfinite(_planned_epsilon(scenario, plan)):
            raise ConfigError(
                f"privacy.noise_multiplier = {plan.noise_multiplier:g} over {_steps(scenario, silo)} steps is too"
                f" little for silo {silo!r}: no epsilon is computed for it; raise it, or take fewer steps"
            )
    # A lot that is not of the size that sums are divided by makes every step too large or too small.
    for far in far_from_divisors(sized):
        _log.warning("%s", far)
    return parameters


def _check_size(scenario: Scenario, plan: SiloPlan, records: int) -> None:
    """Refuse a silo, whose records are all this user's, that holds too few for a lot or too many for delta."""
    from fedmodel.data import may_deal_more

    if (few := under_a_lot(plan, records)) is not None:
        deal = may_deal_more(scenario, plan.largest_lot)
        raise DataError(few + ", or set data.partition.min_records to deal more" * deal)
    if (over := over_delta(plan, records)) is not None:
        raise ConfigError(over)


def _check_floor(scenario: Scenario, plan: SiloPlan) -> None:
    """Say what is really run where a target asks for less noise than the least that is run."""
    if plan.baseline is None and plan.epsilon is not None and plans.noise_multiplier(plan) == LEAST_NOISE:
        _log.warning(
            "epsilon = %g of silo %s asks for no more than the least noise that is run, %g times the clip: its run is"
            " epsilon %s, not %g; privacy.baseline runs without noise, and protects nobody",
            *(plan.epsilon, plan.silo, LEAST_NOISE, up(_planned_epsilon(scenario, plan)), plan.epsilon),
        )


def _steps(scenario: Scenario, silo: str) -> int:
    """Return all steps that a silo is to train, whatever their lots are."""
    return sum(plan.steps for plan in scenario.plans(silo))


def _planned_epsilon(scenario: Scenario, plan: SiloPlan) -> float:
    """Return an upper bound on what a whole run would spend at the silo of a plan."""
    return accounting.epsilon(plans.private_parts(scenario, plan.silo), plan.delta, accounting.COARSE_GRID)


def resolve_device(device: str) -> str:
    """Return "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: When it is none of a device's names, or the card is not there.
    """
    from fedmodel.learning.devices import resolved

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device):
        raise ConfigError(f"--device {device}: is no device; use auto, cpu, cuda, or cuda:N for one of several cards")
    return resolved(device)


@contextmanager
def run_folder(scenario: Scenario, out: Path | None) -> Iterator[Path]:
    """Make the run's folder and write the scenario as resolved into it.

    A run that is refused before anything else lies there leaves no folder of it.

    Raises:
        ConfigError: When the folder cannot be made, or holds something already.
    """
    place = out or default_folder(scenario.name)
    made = [one for one in (place, *place.parents) if not one.exists()]
    folder = new_folder(place)
    try:
        replace_file(folder / "scenario.toml", scenario_to_toml(scenario).encode())
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {error.strerror}") from error
    try:
        yield folder.resolve()
    except FedmodelError:
        if [one.name for one in folder.iterdir()] == ["scenario.toml"]:
            (folder / "scenario.toml").unlink()
            with suppress(OSError):  # another may have put something there meanwhile
                for one in made:
                    one.rmdir()
        raise


def default_folder(name: str) -> Path:
    """Return a folder of its own under `runs`."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}-{os.getpid()}"


def refuse_taken(folder: Path) -> None:
    """Refuse a folder for a run in which something lies already; nothing is made.

    Raises:
        ConfigError: When it holds something, is no folder, or cannot be looked into.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be looked into: {error.strerror}") from error
    if taken:
        raise ConfigError(f"--out {folder}: is not an empty folder; a run never writes over another")


def new_folder(folder: Path) -> Path:
    """Make an empty folder and return it.

    Raises:
        ConfigError: When the folder cannot be made, or holds something already.
    """
    refuse_taken(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {error.strerror}") from error
    return folder


def simulate(
    scenario: Scenario,
    parameters: int,
    engine: str,
    device: str,
    run_dir: Path,
    watching: AbstractContextManager[object],
    kits_ready: Callable[[], None] = lambda: None,
    carrying: Engine | None = None,
) -> dict[str, Any]:
    """Run a checked scenario in its folder, and return the summary that was written to it.

    Args:
        scenario: Checked by `check_scenario`.
        parameters: What that returned.
        engine: Which one carries it, by name.
        device: "cpu", "cuda" or "cuda:N".
        run_dir: Made by `run_folder`, or by `held_folder`: then a run that was cut short goes on after its last whole
            round, and its seconds are those of the rounds that were whole before besides.
        watching: Open while the engine runs, such as a progress bar over the folder's `metrics.jsonl`.
        kits_ready: Called when every party's kit is made, and nothing was asked of any yet.
        carrying: The engine of that name, where there is more to it than its name says.

    Raises:
        ConfigError: When no engine has that name; nothing was written then.
        FedmodelError: When the run fails; what was written until then stays.
    """
    carrying = carrying or engine_of(engine)
    carrying.check(scenario)
    started, before_s = time.monotonic(), sum(line["seconds"] for line in read_metrics(run_dir / "metrics.jsonl"))
    if not (run_dir / SIMULATED).exists():
        going_on = carry(scenario, run_dir)
        if carrying.keeps_ledgers:
            provision(scenario, run_dir, going_on)
        else:
            provision_server(run_dir)
    kits_ready()
    begun = begun_in(run_dir)
    simulation = Simulation(scenario, run_dir, device, "" if begun is None else begun.run)
    with watching, causes_told(run_dir / "logs", scenario.federation.silos):
        carrying.carry(simulation)
    privacy = _rows(scenario, run_dir) if carrying.keeps_ledgers else rows_from_book(scenario, run_dir)
    seconds = before_s + time.monotonic() - started
    summary = sum_up(scenario, run_dir, seconds, privacy, engine=engine, device=device, parameters=parameters)
    try:
        forget_all(run_dir)
    except OSError as error:
        _log.warning("%s; the run has ended, and what it would have gone on from is left there", failed(error))
    return summary


def _rows(scenario: Scenario, run_dir: Path) -> list[dict[str, Any]]:
    """Return a row of privacy a silo, from its ledger."""
    return rows_from_ledgers(scenario, {silo: ledger_in_run(run_dir, silo) for silo in scenario.federation.silos})
