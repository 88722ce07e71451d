"""The coordinator's Flower app: a run from join to final model, as one loop.

    join -> [ choose -> train -> average -> apply -> evaluate -> write ] per round -> countersign -> stop

The model is a vector: what a round begins from, what the strategy moves, what a checkpoint keeps. A module is made of
it to be measured and to be saved.

A silo whose budget is spent leaves in good order: it is asked no more, and the run goes on without it. When fewer are
left than the next round needs, `min_silos`, or three where secrets are dealt for it, the run ends there, with the
model of the last whole round.

After every round it writes the model, which says its own round, and then a line of `metrics.jsonl`: a round with a line
is whole. A round that failed closed leaves the model as it was, and a line that says so; more of those than the
scenario tolerates end the run.

A deployed server's model is an age file, `model.safetensors.age`, and before both comes a checkpoint: killed at any
moment and started again, the run goes on from its last whole round, with the cohorts that it would have had
(`server.journal`). So does a simulated server whose run has a number of its own, with everything in the open; one
server at a time has such a run, also where an engine's process outlived the command that started it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from torch import nn

from fedmodel.canaries.probes import bare, probed
from fedmodel.config import Scenario, scenario_from_json
from fedmodel.errors import ConfigError, DropoutError, FedmodelError
from fedmodel.learning import vectors
from fedmodel.learning.models import build_model
from fedmodel.privacy import accounting
from fedmodel.privacy.events import LEFT_OUT
from fedmodel.provision import check_deployable, read_roster
from fedmodel.seeds import derive_seed
from fedmodel.system.durable import failed, held
from fedmodel.system.inert import InertFormatter
from fedmodel.wire import TrainRequest
from server.aggregation import Aggregation, kind_of
from server.beginning import LOOK_S, begin, known_again, take_up, wait_for_nodes
from server.ending import collect_countersignatures
from server.exchange import Post
from server.joining import Joined, JoinedSilo, find_again
from server.journal import Checkpoint
from server.known_heads import KnownHeads
from server.metrics import MetricsLog, evaluate
from server.run_files import BEING_RUN, SERVING, RunFiles
from server.strategies import strategy_of

logger = logging.getLogger(__name__)

_END_S: Final = 15.0  # at the end, for silos whose nodes are others since the server was started again

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario that the run's configuration carries.

    Raises:
        FedmodelError: When the run cannot begin, or a round fails closed. What was written until then stays.
    """
    named, home = (context.run_config.get(key) for key in ("run-dir", "home"))
    run_dir = Path(str(named))
    if not named or not run_dir.is_dir():
        raise ConfigError("the run's configuration names no run-dir; start it with `fedmodel simulate`")
    with _log_to(run_dir / "server.log"):
        scenario = scenario_from_json(str(context.run_config.get("scenario")))
        run = context.run_config.get("run")
        with nullcontext() if home or not run else held(run_dir / SERVING, BEING_RUN.format(run_dir)):
            run_federation(
                grid,
                scenario,
                run_dir,
                torch.device(str(context.run_config.get("device"))),
                home=Path(str(home)) if home else None,
                run=int(run) if run else None,
            )


def run_federation(
    grid: Grid,
    scenario: Scenario,
    run_dir: Path,
    device: torch.device,
    home: Path | None = None,
    run: int | None = None,
) -> None:
    """Train the scenario's model over the grid's silos, until its rounds are done or its loss is low enough.

    Args:
        grid: Flower's.
        scenario: What to do.
        run_dir: The run's folder; where a checkpoint lies in it, the run is taken up again.
        device: Where the model is measured.
        home: The deployed server's kit, unlocked; None in a simulation, whose kit lies in the run's folder.
        run: The run's number, 64 bits; Flower's where none is given.

    Raises:
        ConfigError: When a deployed server is to run what is a simulation's alone, or the scenario's strategy is not
            known; nothing was asked of any silo.
    """
    if home is not None:
        check_deployable(scenario)
    if scenario.seed is None:
        raise ConfigError("a scenario that runs has a seed; read it with read_scenario")
    torch.set_num_threads(1)
    place = RunFiles(run_dir, run_dir / "server" if home is None else home, home is not None)
    journal = place.journal(run, scenario)
    kept, dealt = (journal and journal.load()) or (None, None)
    strategy = strategy_of(scenario)
    test = place.held_out(scenario)
    model = build_model(scenario.model, scenario.data.shape, derive_seed(scenario.seed, "model"))
    if kept is None:  # a run that is taken up again goes on from its checkpoint
        place.begin(model, scenario)
    module = probed(model, scenario).to(device)
    model_P, state = (vectors.flatten(module), b"") if kept is None else (kept.model_P, kept.strategy)
    log = MetricsLog(run_dir / "metrics.jsonl")

    kind = kind_of(scenario)
    # Simulated silos are asked again whatever they were asked, and give the same bytes.
    keeps_answers = place.sealed or kind.KEEPS_ANSWERS
    post = Post(grid, scenario, *place.keys(), run, journal if keeps_answers else None)
    if kept is not None:
        vectors.load(module, model_P)
        _take_up(kept, module, place, scenario, log)
        if kept.ended or kept.round_number == scenario.rounds:  # killed after its last round
            roster = read_roster(place.home)
            known_heads = KnownHeads(place.home / "heads", roster)
            return _end(post, scenario, place, known_heads, known_again(roster, kept))

    if kept is None:
        rounds = begin(post, scenario, strategy, place.home)
        charged, failures = Counter[str](), 0
        _log_beginning(rounds.taking.joined, scenario)
        for silo, code in rounds.taking.joined.absent.items():
            rounds.taking.joined.let_go(silo, code, 0)
        if journal is not None:
            journal.keep(_checkpoint(rounds, 0, model_P, state, charged, failures))
    else:
        rounds = take_up(post, scenario, strategy, place.home, kept, dealt)
        charged, failures = Counter(kept.charged), kept.failures
    taking, joined = rounds.taking, rounds.taking.joined

    for round_number in range(kept.round_number + 1 if kept else 1, scenario.rounds + 1):
        started = time.monotonic()
        post.begin(round_number)
        find_again(post, scenario, taking.known_heads, joined.members, LOOK_S)
        wait_for_nodes(taking)
        cohort = taking.cohort_of(round_number)
        result = rounds.round(cohort, TrainRequest(round_number, model_P))
        charged.update(result.charged.keys())
        left = [silo for silo, code in result.dropouts.items() if joined.let_go(silo, code, round_number)]
        line: dict[str, Any] = {
            "round": round_number,
            "epsilon": _epsilons(scenario, joined, charged),
            "noise": scenario.privacy.noise_name,
            "cohort": list(result.asked) or cohort,
            "summed": result.summed,
            "dropouts": {**joined.absent, **result.dropouts},
            "withdrawn": joined.withdrawn,
        }
        too_few = len(joined.left) < rounds.needed
        ended = too_few
        if result.mean_P is None:
            failures += 0 if left else 1  # whose budget ends, and when, nobody could plan for
            logger.warning("%s", result.failure)
            if failures > scenario.federation.tolerated_failures and not too_few:
                raise DropoutError(result.failure)
            line["failed"] = True
        else:
            model_P, state = strategy.apply(model_P, result.mean_P, state)
            vectors.load(module, model_P)
            figures = evaluate(module, scenario.training.loss, test, device)
            line |= {**figures, "threshold": result.threshold}
            ended |= scenario.stop_below_loss is not None and figures["loss"] < scenario.stop_below_loss
        line["seconds"] = round(time.monotonic() - started, 3)
        if journal is not None:
            journal.keep(
                _checkpoint(rounds, round_number, model_P, state, charged, failures, ended=ended, line=line),
                rounds.dealt(),
            )
        if result.mean_P is not None:
            place.save(bare(module), scenario, round_number)
        place.report(joined.charges, charged)
        log.append(line)
        if "loss" in line:
            logger.info("round %d of %d: loss %.4f", round_number, scenario.rounds, line["loss"])
        if ended:
            _log_end(rounds, line)
            break
    return _end(post, scenario, place, taking.known_heads, joined.members)


def _checkpoint(
    rounds: Aggregation[Any],
    round_number: int,
    model_P: NDArray[np.float32],
    state: bytes,
    charged: Counter[str],
    failures: int,
    *,
    ended: bool = False,
    line: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Return the run as it is after a round."""
    joined = rounds.taking.joined
    return Checkpoint(
        round_number,
        model_P,
        joined.charges,
        dict(charged),
        dict(joined.absent),
        dict(joined.withdrawn),
        failures,
        ended,
        dict(line or {}),
        rounds.state(),
        rounds.taking.lineages.state(),
        state,
    )


def _end(
    post: Post, scenario: Scenario, place: RunFiles, known_heads: KnownHeads, members: dict[str, JoinedSilo]
) -> None:
    """Have silos countersign what was charged and what came of it, and erase what the run does not need any more."""
    model = place.model_hash()
    if model is not None:
        find_again(post, scenario, known_heads, members, _END_S)
        collect_countersignatures(post, scenario.rounds + 1, known_heads, members, model)
    place.clear_up()


def _take_up(kept: Checkpoint, module: nn.Module, place: RunFiles, scenario: Scenario, log: MetricsLog) -> None:
    """Bring the files that follow a checkpoint up to it: a kill may have come between."""
    logger.info("taken up again after round %d of %d", kept.round_number, scenario.rounds)
    if kept.line:
        if "failed" not in kept.line:
            place.save(bare(module), scenario, kept.round_number)
        place.report(kept.charges, kept.charged)
        log.mend(dict(kept.line))


def _log_beginning(joined: Joined, scenario: Scenario) -> None:
    """Say what a reader of the log should know from the start."""
    if scenario.privacy.baseline is not None:
        logger.info("%s: this run protects nobody", LEFT_OUT[scenario.privacy.baseline])
    elif scenario.privacy.noise == "seeded-unsafe":
        logger.info(
            "noise is seeded-unsafe: whoever knows the seed can remove it; no epsilon of this run protects anybody"
        )
    for silo, code in joined.absent.items():
        logger.warning("silo %s did not join: %s", silo, code)


def _log_end(rounds: Aggregation[Any], line: Mapping[str, Any]) -> None:
    """Say why a run ends before its rounds are done."""
    scenario = rounds.taking.scenario
    if scenario.stop_below_loss is not None and "loss" in line and line["loss"] < scenario.stop_below_loss:
        logger.info("stopped: loss %.4f is under %.4f", line["loss"], scenario.stop_below_loss)
        return
    logger.warning(
        "ended: %d silos are left where the next round needs %d; the model is that of the last whole round",
        len(rounds.taking.joined.left),
        rounds.needed,
    )


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep what the coordinator logs, and last of all why it failed: under Flower nothing else of it comes back."""
    log = logging.getLogger("server")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(InertFormatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        # Another's text could be a node's; its kind is enough to look for. What the system says of a path is no node's.
        told = str(error) if isinstance(error, FedmodelError) else f"the coordinator failed: {type(error).__name__}"
        told = failed(error) if isinstance(error, OSError) else told
        handler.emit(log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (told,), None))
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        with suppress(OSError):  # a disk that is full takes no last line, and must not hide why the run ended
            handler.close()


def _epsilons(scenario: Scenario, joined: Joined, charged: Counter[str]) -> dict[str, float | None]:
    """Return the epsilon of each silo that says it charged something; the ledgers have the last word.

    It is of the whole plan from the first round on: what a run costs does not hang on where somebody who watches it
    ends it. None where nothing bounds it, since JSON has no infinity.
    """
    found = {
        silo: accounting.epsilon(
            [replace(joined.members[silo].charge, steps=scenario.plan(silo).steps)],
            scenario.plan(silo).delta,
            accounting.COARSE_GRID,
        )
        for silo in sorted(charged)
    }
    return {silo: epsilon if math.isfinite(epsilon) else None for silo, epsilon in found.items()}
