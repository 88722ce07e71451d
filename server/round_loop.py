"""A run's rounds: each asks, folds what it comes to, measures, and is on disk before the next begins.

    [ choose -> ask -> mean -> fold -> measure -> write ] per round

Of an audited run, each mean is written down before anything is made of it, where the audit looks.

What a round asks, and what its mean does and says, is its job's (`fedmodel.learning.jobs`), by the scenario; who is in
it, the strategy's; how answers become a mean, the aggregation's. What a run has come to is a vector; a module is made
of it to be measured and to be saved, and by nothing here.

A silo whose budget is spent leaves in good order: it is asked no more, and the run goes on without it. When fewer are
left than the next round needs, `min_silos`, or three where secrets are dealt for it, the run ends there, with the
model of the last whole round.

After every round the run's model is written, that of the round or the average of all so far
(`fedmodel.learning.averaging`), which says its own round, and then a line of `metrics.jsonl`: a round with a line is
whole. Before both comes a checkpoint, where the run has a journal. A round that failed closed leaves what the run has
come to as it was, and a line that says so; more of those than the scenario tolerates end the run.

The rounds of jobs besides training come last, one each, also where training ended early. They change nothing of the
model; their lines are in `besides.jsonl`. One that fails closed, or has too few silos to begin, is not done again and
fails no run: its line says so.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.canaries.means import drop_mean, keep_mean
from fedmodel.canaries.probes import watched
from fedmodel.config import TRAINING
from fedmodel.errors import DropoutError
from fedmodel.learning.jobs import Asking, State
from fedmodel.ledger.entries import ByPart, by_part, figures_of
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event
from fedmodel.wire import TrainRequest
from server.aggregation import Aggregation, RoundResult
from server.beginning import LOOK_S, wait_for_nodes
from server.joining import find_again
from server.journal import Checkpoint, Journal
from server.metrics import Logs, labelled_together
from server.run_files import RunFiles
from server.served_model import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComeTo:
    """What a run has come to after a round.

    Attributes:
        number: The round; 0 after joining.
        state: Training's.
        charged: By silo, for how many rounds of training it said that it charged; of each phase, where lots grow.
        failures: Rounds of training that failed closed.
        ended: Whether no round of training follows, whatever the scenario says.
        line: The round's line of metrics, empty after joining.
    """

    number: int
    state: State
    charged: Mapping[str, ByPart] = field(default_factory=dict)
    failures: int = 0
    ended: bool = False
    line: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def again(cls, kept: Checkpoint) -> ComeTo:
        """Return what a run had come to when its checkpoint was written."""
        state = State(kept.model_P, kept.strategy)
        return cls(kept.round_number, state, kept.charged, kept.failures, kept.ended, kept.line)


class RoundLoop:
    """The rounds of one run.

    Args:
        rounds: Bring each to its mean.
        jobs: By name, what a round asks, and what comes of it.
        model: Saves what the run has come to.
        place: Where the run's things lie.
        journal: What the run is taken up from, if it is.
        logs: Takes the line of a round.
    """

    def __init__(
        self,
        rounds: Aggregation[Any],
        jobs: Mapping[str, Asking],
        model: ServedModel,
        place: RunFiles,
        journal: Journal | None,
        logs: Logs,
    ) -> None:
        self._rounds, self._jobs, self._model = rounds, jobs, model
        self._place, self._journal, self._logs = place, journal, logs
        self._taking, self._scenario = rounds.taking, rounds.taking.scenario
        self._costs: dict[str, tuple[Event, float | None]] = {}

    def run(self, come_to: ComeTo) -> ComeTo:
        """Bring the run to its last round, from the one after what it has come to, and return what it has come to then.

        Raises:
            DropoutError: When more rounds failed closed than the scenario tolerates.
            ProtocolError: When the model diverged.
        """
        scenario = self._scenario
        for number in range(come_to.number + 1, scenario.rounds + 1):
            if come_to.ended:
                break
            come_to = self._round(number, come_to)
            self.keep(come_to)
            if "failed" not in come_to.line:
                self._model.save(come_to.state, number)
            self._place.report(self._taking.joined.charges, come_to.charged)
            self._logs.append(come_to.line)
            if "loss" in come_to.line:
                logger.info("round %d of %d: loss %.4f", number, scenario.rounds, come_to.line["loss"])
            if come_to.ended:
                self._log_end(come_to.line)
        for number in range(max(come_to.number, scenario.rounds) + 1, scenario.last_round + 1):
            come_to = replace(come_to, number=number, line=self._besides(number))
            self.keep(come_to)
            self._logs.append(come_to.line)
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
        taking, joined, scenario, job = self._taking, self._taking.joined, self._scenario, self._jobs[TRAINING]
        part = scenario.phase_of(number)
        joined.take_back(scenario.phases[part].first)
        cohort, result = self._ask(number, job.question(number, before.state))
        left = [silo for silo, code in result.dropouts.items() if joined.let_go(silo, code, number)]
        charged = _counted(before.charged, result.charged, part, len(scenario.phases))
        bounds = labelled_together(scenario.privacy.noise_name, self._epsilons(charged))
        line = {**bounds, **self._line(number, cohort, result)}
        waits = self._waits(part)
        too_few = len(joined.left) < self._rounds.needed and not waits
        ended, state, failures = too_few, before.state, before.failures
        if result.mean_P is None:
            if scenario.audit is not None:
                drop_mean(self._place.home, number)
            # Whose budget ends, and when, nobody could plan for; nor what to ask of too few until the next phase.
            failures += 0 if left or (waits and not cohort) else 1
            logger.warning("%s", result.failure)
            if failures > scenario.federation.tolerated_failures and not too_few:
                taking.post.ask_again()
                raise DropoutError(result.failure)
            line["failed"] = True
        else:
            if scenario.audit is not None:
                keep_mean(self._place.home, number, watched(scenario, result.mean_P))
            state = job.fold(state, result.mean_P)
            line |= {**job.tell(state, result.summed), "threshold": result.threshold}
            ended |= scenario.stop_below_loss is not None and line["loss"] < scenario.stop_below_loss
        line["seconds"] = round(time.monotonic() - started, 3)
        return ComeTo(number, state, charged, failures, ended, line)

    def _waits(self, part: int) -> bool:
        """Return whether silos have no round of a phase left, and are asked again in the next: lots grow then."""
        phases, joined = self._scenario.phases, self._taking.joined
        return part + 1 < len(phases) and any(joined.left_in(silo) >= phases[part].first for silo in joined.members)

    def _besides(self, number: int) -> dict[str, Any]:
        """Bring the round of a job besides training to its line."""
        started, joined = time.monotonic(), self._taking.joined
        name = self._scenario.job_of(number)
        job, begun = self._jobs[name], State(np.zeros(0, dtype=np.float32))
        cohort, result = self._ask(number, job.question(number, begun))
        for silo, code in result.dropouts.items():
            joined.let_go(silo, code, number)
        line = {"job": name, "charged": sorted(result.charged), **self._line(number, cohort, result)}
        if result.mean_P is None:
            logger.warning("%s", result.failure)
            line["failed"] = True
        else:
            line |= {**job.tell(job.fold(begun, result.mean_P), result.summed), "threshold": result.threshold}
        line["seconds"] = round(time.monotonic() - started, 3)
        return line

    def _ask(self, number: int, vector_P: NDArray[np.float32]) -> tuple[list[str], RoundResult]:
        """Ask a round's cohort, once its silos are there, and return who it is and what came of it.

        Nobody is asked where too few are left: who answered would be charged for nothing.
        """
        taking, job = self._taking, self._scenario.job_of(number)
        if len(taking.joined.left) < self._rounds.needed:
            return [], RoundResult(None, failure=f"round {number} ({job}): too few silos are left to be asked")
        taking.post.begin(number)
        find_again(taking.post, self._scenario, taking.known_heads, taking.joined.members, LOOK_S)
        wait_for_nodes(taking)
        cohort = taking.cohort_of(number)
        return cohort, self._rounds.round(cohort, TrainRequest(number, vector_P, job=job))

    def _line(self, number: int, cohort: list[str], result: RoundResult) -> dict[str, Any]:
        """Return what a line says of any round."""
        joined = self._taking.joined
        return {
            "round": number,
            "noise": self._scenario.privacy.noise_name,
            "cohort": list(result.asked) or cohort,
            "summed": result.summed,
            "dropouts": {**joined.absent, **result.dropouts},
            "withdrawn": joined.withdrawn,
        }

    def _epsilons(self, charged: Collection[str]) -> dict[str, float | None]:
        """Return the epsilon of each silo that says it charged something, if nobody can subtract its noise.

        The ledgers have the last word.

        It is of the whole plan from the first round on: what a run costs does not hang on where somebody who watches it
        ends it. None where nothing bounds it, since JSON has no infinity.
        """
        return {silo: self._cost(silo, self._taking.joined.members[silo].charge) for silo in sorted(charged)}

    def _cost(self, silo: str, charge: Event) -> float | None:
        """Return what a run costs a silo that charges so for a round; computed once for as long as it does."""
        if silo not in self._costs or self._costs[silo][0] is not charge:
            events = plans.parts_beginning(self._scenario, silo, charge)
            epsilon = accounting.epsilon(events, self._scenario.plan(silo).delta, accounting.COARSE_GRID)
            self._costs[silo] = charge, epsilon if math.isfinite(epsilon) else None
        return self._costs[silo][1]

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


def _counted(before: Mapping[str, ByPart], silos: Collection[str], part: int, phases: int) -> dict[str, ByPart]:
    """Count a round of a phase for each of some silos."""
    rounds = {silo: list(figures_of(said, phases)) for silo, said in before.items()}
    for silo in silos:
        rounds.setdefault(silo, [0] * phases)[part] += 1
    return {silo: by_part(figures) for silo, figures in rounds.items()}
