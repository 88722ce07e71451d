"""A run's rounds: each asks, folds what it comes to, measures, and is on disk before the next begins.

    [ choose -> ask -> mean -> fold -> measure -> write ] per round

What a round asks, and what its mean does, is the job's (`fedmodel.learning.jobs`); who is in it, the strategy's; how
answers become a mean, the aggregation's. What a run has come to is a vector; a module is made of it to be measured and
to be saved, and by nothing here.

A silo whose budget is spent leaves in good order: it is asked no more, and the run goes on without it. When fewer are
left than the next round needs, `min_silos`, or three where secrets are dealt for it, the run ends there, with the
model of the last whole round.

After every round its model is written, which says its own round, and then a line of `metrics.jsonl`: a round with a
line is whole. Before both comes a checkpoint, where the run has a journal. A round that failed closed leaves what the
run has come to as it was, and a line that says so; more of those than the scenario tolerates end the run.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedmodel.errors import DropoutError
from fedmodel.learning.jobs import Asking, State
from fedmodel.privacy import accounting
from fedmodel.wire import TrainRequest
from server.aggregation import Aggregation, RoundResult
from server.beginning import LOOK_S, wait_for_nodes
from server.joining import find_again
from server.journal import Checkpoint, Journal
from server.metrics import MetricsLog
from server.run_files import RunFiles
from server.served_model import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComeTo:
    """What a run has come to after a round.

    Attributes:
        number: The round; 0 after joining.
        state: The job's.
        charged: By silo, for how many rounds it said that it charged.
        failures: Rounds that failed closed.
        ended: Whether it is the run's last round, whatever the scenario says.
        line: The round's line of metrics, empty after joining.
    """

    number: int
    state: State
    charged: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    ended: bool = False
    line: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def again(cls, kept: Checkpoint) -> ComeTo:
        """Return what a run had come to when its checkpoint was written."""
        state = State(kept.model_P, kept.strategy)
        return cls(kept.round_number, state, Counter(kept.charged), kept.failures, kept.ended, kept.line)


class RoundLoop:
    """The rounds of one run.

    Args:
        rounds: Bring each to its mean.
        job: What each asks, and what comes of it.
        model: Measures what the run has come to, and saves it.
        place: Where the run's things lie.
        journal: What the run is taken up from, if it is.
        log: Of metrics.
    """

    def __init__(
        self,
        rounds: Aggregation[Any],
        job: Asking,
        model: ServedModel,
        place: RunFiles,
        journal: Journal | None,
        log: MetricsLog,
    ) -> None:
        self._rounds, self._job, self._model = rounds, job, model
        self._place, self._journal, self._log = place, journal, log
        self._taking, self._scenario = rounds.taking, rounds.taking.scenario

    def run(self, come_to: ComeTo) -> ComeTo:
        """Bring the run to its last round, from the one after what it has come to, and return what it has come to then.

        Raises:
            DropoutError: When more rounds failed closed than the scenario tolerates.
            ProtocolError: When the model diverged.
        """
        for number in range(come_to.number + 1, self._scenario.rounds + 1):
            come_to = self._round(number, come_to)
            self.keep(come_to)
            if "failed" not in come_to.line:
                self._model.save(come_to.state.vector_P, number)
            self._place.report(self._taking.joined.charges, come_to.charged)
            self._log.append(dict(come_to.line))
            if "loss" in come_to.line:
                logger.info("round %d of %d: loss %.4f", number, self._scenario.rounds, come_to.line["loss"])
            if come_to.ended:
                self._log_end(come_to.line)
                break
        return come_to

    def keep(self, come_to: ComeTo) -> None:
        """Put what the run has come to on disk, where it has a journal: it goes on from there."""
        if self._journal is None:
            return
        joined = self._taking.joined
        checkpoint = Checkpoint(
            come_to.number,
            come_to.state.vector_P,
            joined.charges,
            dict(come_to.charged),
            dict(joined.absent),
            dict(joined.withdrawn),
            come_to.failures,
            come_to.ended,
            dict(come_to.line),
            self._rounds.state(),
            self._taking.lineages.state(),
            come_to.state.kept,
        )
        self._journal.keep(checkpoint, self._rounds.dealt())

    def _round(self, number: int, before: ComeTo) -> ComeTo:
        """Bring one round to what the run has come to after it."""
        started = time.monotonic()
        taking, joined, scenario = self._taking, self._taking.joined, self._scenario
        taking.post.begin(number)
        find_again(taking.post, scenario, taking.known_heads, joined.members, LOOK_S)
        wait_for_nodes(taking)
        cohort = taking.cohort_of(number)
        result = self._rounds.round(cohort, TrainRequest(number, self._job.question(number, before.state)))
        left = [silo for silo, code in result.dropouts.items() if joined.let_go(silo, code, number)]
        charged = before.charged + Counter(result.charged.keys())
        line = self._line(number, cohort, result, charged)
        too_few = len(joined.left) < self._rounds.needed
        ended, state, failures = too_few, before.state, before.failures
        if result.mean_P is None:
            failures += 0 if left else 1  # whose budget ends, and when, nobody could plan for
            logger.warning("%s", result.failure)
            if failures > scenario.federation.tolerated_failures and not too_few:
                taking.post.ask_again()
                raise DropoutError(result.failure)
            line["failed"] = True
        else:
            state = self._job.fold(state, result.mean_P)
            figures = self._model.measure(state.vector_P)
            line |= {**figures, "threshold": result.threshold}
            ended |= scenario.stop_below_loss is not None and figures["loss"] < scenario.stop_below_loss
        line["seconds"] = round(time.monotonic() - started, 3)
        return ComeTo(number, state, charged, failures, ended, line)

    def _line(self, number: int, cohort: list[str], result: RoundResult, charged: Counter[str]) -> dict[str, Any]:
        """Return what a line of metrics says of any round."""
        joined = self._taking.joined
        return {
            "round": number,
            "epsilon": self._epsilons(charged),
            "noise": self._scenario.privacy.noise_name,
            "cohort": list(result.asked) or cohort,
            "summed": result.summed,
            "dropouts": {**joined.absent, **result.dropouts},
            "withdrawn": joined.withdrawn,
        }

    def _epsilons(self, charged: Counter[str]) -> dict[str, float | None]:
        """Return the epsilon of each silo that says it charged something; the ledgers have the last word.

        It is of the whole plan from the first round on: what a run costs does not hang on where somebody who watches it
        ends it. None where nothing bounds it, since JSON has no infinity.
        """
        scenario, joined = self._scenario, self._taking.joined
        found = {
            silo: accounting.epsilon(
                [replace(joined.members[silo].charge, steps=scenario.plan(silo).steps)],
                scenario.plan(silo).delta,
                accounting.COARSE_GRID,
            )
            for silo in sorted(charged)
        }
        return {silo: epsilon if math.isfinite(epsilon) else None for silo, epsilon in found.items()}

    def _log_end(self, line: Mapping[str, Any]) -> None:
        """Say why a run ends before its rounds are done."""
        scenario = self._scenario
        if scenario.stop_below_loss is not None and "loss" in line and line["loss"] < scenario.stop_below_loss:
            logger.info("stopped: loss %.4f is under %.4f", line["loss"], scenario.stop_below_loss)
            return
        logger.warning(
            "ended: %d silos are left where the next round needs %d; the model is that of the last whole round",
            len(self._taking.joined.left),
            self._rounds.needed,
        )
