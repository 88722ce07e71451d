"""The coordinator's Flower app: a run from join to final model. What it is made of is put together here alone.

    join -> [ a round ] per round (`server.round_loop`) -> countersign -> stop

A silo whose budget is spent leaves in good order: it is asked no more, and the run goes on without it. When fewer are
left than the next round needs, `min_silos`, or three where secrets are dealt for it, the run ends there, with the
model of the last whole round.

A deployed server's model is an age file, `model.safetensors.age`, and before both comes a checkpoint: killed at any
moment and started again, the run goes on from its last whole round, with the cohorts that it would have had
(`server.journal`). So does a simulated server whose run has a number of its own, with everything in the open; one
server at a time has such a run, also where an engine's process outlived the command that started it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmodel.canaries.probes import block_of
from fedmodel.config import TRAINING, Scenario, scenario_from_json
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds import bases, own_code
from fedmodel.learning.jobs import Serving, State, job_named
from fedmodel.privacy.events import EXPERIMENT, IF_HIDDEN, LEFT_OUT
from fedmodel.provision import bases_of, check_deployable, read_roster, read_server_law
from fedmodel.system.durable import failed, held
from fedmodel.system.inert import InertFormatter
from server.aggregation import kind_of
from server.beginning import begin, known_again, take_up
from server.ending import collect_countersignatures
from server.exchange import Post
from server.joining import Joined, JoinedSilo, find_again
from server.journal import Checkpoint
from server.known_heads import KnownHeads
from server.metrics import Logs
from server.round_loop import ComeTo, RoundLoop
from server.run_files import BEING_RUN, SERVING, RunFiles
from server.served_model import ServedModel
from server.strategies import check_listed_strategy, strategy_of

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
    with log_to(run_dir / "server.log"):
        scenario = scenario_from_json(str(context.run_config.get("scenario")))
        folder = context.run_config.get("own-code")
        own_code.keep_open(Path(str(folder)) if folder else None)
        if base := context.run_config.get("base"):
            bases.lie_at(dict.fromkeys(bases_of(scenario), str(base)), run_dir)
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
            known, or none of the code that the server's file approved of; nothing was asked of any silo.
    """
    if home is not None:
        check_deployable(scenario)
        if ":" in scenario.federation.strategy:
            check_listed_strategy(scenario, read_server_law(home).strategy_packages)
        if bases_of(scenario):
            bases.lie_at(read_server_law(home).bases, home)
    if scenario.seed is None:
        raise ConfigError("a scenario that runs has a seed; read it with read_scenario")
    torch.set_num_threads(1)
    place = RunFiles(run_dir, run_dir / "server" if home is None else home, home is not None)
    journal = place.journal(run, scenario)
    kept, dealt = (journal and journal.load()) or (None, None)
    strategy = strategy_of(scenario)
    block = block_of(scenario)
    model = ServedModel(scenario, place, device, beside=0 if block is None else block.parameters)
    serving = Serving(scenario, strategy.apply, model.measure)
    jobs = {name: job_named(name).asking(serving) for name in (TRAINING, *scenario.besides)}
    logs = Logs(run_dir)

    kind = kind_of(scenario)
    # Simulated silos are asked again whatever they were asked, and give the same bytes.
    keeps_answers = place.sealed or kind.KEEPS_ANSWERS
    name = run_dir.name if place.sealed else ""
    post = Post(grid, scenario, *place.keys(), run, journal if keeps_answers else None, name)
    if kept is not None:
        bring_up_to(kept, scenario, model, place, logs)
        if kept.round_number == scenario.last_round or (
            kept.ended and not scenario.besides
        ):  # killed after its last round
            roster = read_roster(place.home)
            known_heads = KnownHeads(place.home / "heads", roster)
            model.judge(ComeTo.again(kept).state, kept.charges)
            return _end(post, scenario, place, known_heads, known_again(roster, kept))

    if kept is None:
        come_to = ComeTo(0, State(model.begin()))
        rounds = begin(post, scenario, strategy, place.home)
        _log_beginning(rounds.taking.joined, scenario)
        for silo, code in rounds.taking.joined.absent.items():
            rounds.taking.joined.let_go(silo, code, 0)
        loop = RoundLoop(rounds, jobs, model, place, journal, logs)
        loop.keep(come_to)
    else:
        come_to = ComeTo.again(kept)
        rounds = take_up(post, scenario, strategy, place.home, kept, dealt)
        loop = RoundLoop(rounds, jobs, model, place, journal, logs)
    come_to = loop.run(come_to)
    model.judge(come_to.state, rounds.taking.joined.charges)
    return _end(post, scenario, place, rounds.taking.known_heads, rounds.taking.joined.members)


def _end(
    post: Post, scenario: Scenario, place: RunFiles, known_heads: KnownHeads, members: dict[str, JoinedSilo]
) -> None:
    """Have silos countersign what was charged and what came of it, and erase what the run does not need any more."""
    model = place.model_hash()
    if model is not None:
        find_again(post, scenario, known_heads, members, _END_S)
        collect_countersignatures(post, scenario.last_round + 1, known_heads, members, model)
    place.clear_up()


def bring_up_to(kept: Checkpoint, scenario: Scenario, model: ServedModel, place: RunFiles, logs: Logs) -> None:
    """Bring the files that follow a checkpoint up to it: a kill may have come between."""
    logger.info("taken up again after round %d of %d", kept.round_number, scenario.last_round)
    if kept.line:
        if not {"failed", "job"} & kept.line.keys():
            model.save(ComeTo.again(kept).state, kept.round_number)
        place.report(kept.charges, kept.charged)
        logs.mend(kept.line)


def _log_beginning(joined: Joined, scenario: Scenario) -> None:
    """Say what a reader of the log should know from the start."""
    if scenario.privacy.baseline is not None:
        logger.info("%s: this run protects nobody", LEFT_OUT[scenario.privacy.baseline])
    elif scenario.privacy.noise == EXPERIMENT:
        logger.info(
            "noise is an experiment's, from a seed: this run protects nobody; what is told as epsilon would hold %s",
            IF_HIDDEN,
        )
    elif scenario.privacy.noise == "seeded-unsafe":
        logger.info(
            "noise is seeded-unsafe: whoever knows the seed can remove it; no epsilon of this run protects anybody"
        )
    for silo, code in joined.absent.items():
        logger.warning("silo %s did not join: %s", silo, code)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
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
