"""The coordinator's Flower app: a run from join to final model, as one loop.

    join -> [ cohort -> train -> average -> apply -> evaluate -> write ] per round -> stop

A silo whose budget is spent leaves in good order: it is asked no more, and the run goes on without it. When fewer than
`min_silos` are left, the run ends there, with the model of the last whole round.

After every round it writes `model.safetensors`, which says its own round, and then a line of `metrics.jsonl`: a round
with a line is whole. A round that failed closed leaves the model as it was, and a line that says so; more of those
than the scenario tolerates end the run.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmodel import accounting, vectors
from fedmodel.config import Scenario, scenario_from_json
from fedmodel.data import data_shape, held_out_records
from fedmodel.errors import ConfigError, DropoutError, FedmodelError, PrivacyBudgetExceeded
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.models import build_model
from fedmodel.provision import read_identity, read_roster
from fedmodel.seeds import derive_seed
from fedmodel.wire import TrainRequest
from server.aggregation import SecureRounds, cohort_round, is_advert_of, simulated_round, window_from
from server.checkpoint import save_model
from server.exchange import Post
from server.metrics import MetricsLog, evaluate
from server.rounds import Joined, RoundResult, join, train_round
from server.strategy import choose_cohort
from server.witness import Witness

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario that the run's configuration carries.

    Raises:
        FedmodelError: When the run cannot begin, or a round fails closed. What was written until then stays.
    """
    named = context.run_config.get("run-dir")
    run_dir = Path(str(named))
    if not named or not run_dir.is_dir():
        raise ConfigError("the run's configuration names no run-dir; start it with `fedmodel simulate`")
    with _log_to(run_dir / "server.log"):
        scenario = scenario_from_json(str(context.run_config.get("scenario")))
        run_federation(grid, scenario, run_dir, torch.device(str(context.run_config.get("device"))))


def run_federation(grid: Grid, scenario: Scenario, run_dir: Path, device: torch.device) -> None:
    """Train the scenario's model over the grid's silos, until its rounds are done or its loss is low enough."""
    if scenario.seed is None:
        raise ConfigError("a scenario that runs has a seed; read it with read_scenario")
    torch.set_num_threads(1)
    test = held_out_records(scenario)
    module = build_model(scenario.model, data_shape(scenario.data), derive_seed(scenario.seed, "model")).to(device)
    log = MetricsLog(run_dir / "metrics.jsonl")
    charged: dict[str, list[DpSgdEvent]] = defaultdict(list)

    rounds = _rounds(Post(grid, scenario, read_identity(run_dir / "server")), scenario, run_dir)
    if scenario.privacy.noise == "seeded-unsafe":
        logger.info(
            "noise is seeded-unsafe: whoever knows the seed can remove it; no epsilon of this run protects anybody"
        )
    for silo, code in rounds.joined.absent.items():
        logger.warning("silo %s did not join: %s", silo, code)

    failures = 0
    for silo, code in rounds.joined.absent.items():
        rounds.let_go(silo, code, 0)
    for round_number in range(1, scenario.rounds + 1):
        started = time.monotonic()
        cohort = rounds.cohort(round_number)
        model_P = vectors.flatten(module)
        result = rounds.train(cohort, TrainRequest(round_number, model_P))
        for silo, event in result.charged.items():
            charged[silo].append(event)
        left = [silo for silo, code in result.dropouts.items() if rounds.let_go(silo, code, round_number)]
        line: dict[str, object] = {
            "round": round_number,
            "epsilon": _epsilons(scenario, charged),
            "noise": scenario.privacy.noise,
            "cohort": list(result.asked) or cohort,
            "summed": result.summed,
            "dropouts": {**rounds.joined.absent, **result.dropouts},
            "withdrawn": rounds.withdrawn,
        }
        too_few = len(rounds.left) < scenario.federation.min_silos
        if result.update_P is None:
            failures += 0 if left else 1  # whose budget ends, and when, nobody could plan for
            logger.warning("%s", result.failure)
            if failures > scenario.federation.tolerated_failures and not too_few:
                raise DropoutError(result.failure)
            log.append({**line, "failed": True, "seconds": round(time.monotonic() - started, 3)})
            if too_few:
                _log_end(rounds, scenario)
                break
            continue
        vectors.load(module, model_P + result.update_P)
        figures = evaluate(module, scenario.training.loss, test, device)
        about = {"scenario": scenario.name, "round": str(round_number), "noise": scenario.privacy.noise}
        save_model(module, run_dir / "model.safetensors", about)
        log.append({**line, **figures, "threshold": result.threshold, "seconds": round(time.monotonic() - started, 3)})
        logger.info("round %d of %d: loss %.4f", round_number, scenario.rounds, figures["loss"])
        if scenario.stop_below_loss is not None and figures["loss"] < scenario.stop_below_loss:
            logger.info("stopped: loss %.4f is under %.4f", figures["loss"], scenario.stop_below_loss)
            break
        if too_few:
            _log_end(rounds, scenario)
            break


@dataclass(frozen=True)
class _Rounds:
    """How rounds of this run go: who is in them, and what brings one to its result."""

    joined: Joined
    cohort: Callable[[int], list[str]]
    train: Callable[[list[str], TrainRequest], RoundResult]
    withdrawn: dict[str, dict[str, str | int]]

    @property
    def left(self) -> list[str]:
        """Who can still be asked."""
        return [silo for silo in self.joined.members if silo not in self.withdrawn]

    def let_go(self, silo: str, code: str, round_number: int) -> bool:
        """Ask a silo no more that says its budget is spent, and return whether that is new."""
        if code != PrivacyBudgetExceeded.code or silo in self.withdrawn:
            return False
        self.withdrawn[silo] = {"round": round_number, "code": code}
        logger.warning("silo %s left in round %d: %s", silo, round_number, code)
        return True


def _rounds(post: Post, scenario: Scenario, run_dir: Path) -> _Rounds:
    """Let the silos join, and return how rounds go under the scenario's kind of aggregation."""
    federation, seed = scenario.federation, scenario.seed or 0
    mode = scenario.encryption.secure_aggregation
    roster = read_roster(run_dir / "server")
    window = window_from(scenario, post.run, first=1, attempt=1) if mode == "on" else None
    witness = Witness(run_dir / "server" / "heads", roster)
    joined = join(post, scenario, witness, window, partial(is_advert_of, scenario, roster, window))
    withdrawn: dict[str, dict[str, str | int]] = {}

    def cohort(number: int) -> list[str]:
        left = [silo for silo in joined.members if silo not in withdrawn]
        size = min(federation.cohort_size, len(left))
        return choose_cohort(left, size, seed, cohort_round(scenario, number))

    if mode == "on":
        train = SecureRounds(post, scenario, roster, witness, joined, cohort, withdrawn).train_round
    elif mode == "simulated":
        train = partial(simulated_round, post, scenario, witness, joined)
    else:
        train = partial(train_round, post, federation, witness, joined.members)
    return _Rounds(joined, cohort, train, withdrawn)


def _log_end(rounds: _Rounds, scenario: Scenario) -> None:
    """Say why a run ends before its rounds are done."""
    logger.warning(
        "ended: %d silos are left where federation.min_silos = %d; the model is that of the last whole round",
        len(rounds.left),
        scenario.federation.min_silos,
    )


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep what the coordinator logs, and last of all why it failed: under Flower nothing else of it comes back."""
    log = logging.getLogger("server")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        # Another's text could be a node's; its kind is enough to look for.
        told = str(error) if isinstance(error, FedmodelError) else f"the coordinator failed: {type(error).__name__}"
        handler.emit(log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (told,), None))
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def _epsilons(scenario: Scenario, charged: dict[str, list[DpSgdEvent]]) -> dict[str, float]:
    """Return each silo's epsilon so far, from what it says it charged; the ledgers have the last word."""
    return {
        silo: accounting.epsilon(events, scenario.plan(silo).delta, accounting.COARSE_GRID)
        for silo, events in sorted(charged.items())
    }
