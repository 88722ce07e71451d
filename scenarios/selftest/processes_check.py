"""A silo that trains in two processes: do they release what one does?

The check `as_one_process` of the suite of planted faults. Records, lots and noise come from a seed, so that the two
updates are one to the last bit, or the processes did something of their own: noise, lots or clips. Each record has
several views, which are one record. What trains is a silo's own code, and the second process is a real one.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.errors import PrivacyError
from fedmodel.learning import ranks
from fedmodel.learning.jobs import Question, Site, _rank
from fedmodel.learning.jobs.training import Answering
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten

PROCESSES = 2


def unlike_one(scenario: Scenario) -> tuple[str | None, str | None]:
    """Train a round in one process and in two, and say why two refused, and how what they release differs.

    Args:
        scenario: With a seeded noise source, and lots of several physical batches.

    Returns:
        Two sentences, each None where there is nothing to say.
    """
    ranks.prepare(_rank.work)  # what is planted is in the processes that are forked from here on
    with closing(ranks):
        one_P = _update(scenario, 1)
        try:
            two_P = _update(scenario, PROCESSES)
        except PrivacyError as error:
            return str(error), None
    if one_P.tobytes() == two_P.tobytes():
        return None, None
    apart = float(np.abs(one_P - two_P).max())
    return None, f"{PROCESSES} processes released what is {apart:.3g} from what one does, where all chance is the same"


def _update(scenario: Scenario, processes: int) -> NDArray[np.float32]:
    """Return what a silo releases in the first round."""
    silo = scenario.federation.silos[0]
    plan = scenario.plan(silo)
    event = plans.planned_event(plan)
    question = Question(1, flatten(build_model(scenario.model, scenario.data.shape, seed=1)))
    job = Answering(Site(silo, scenario, "cpu", simulated=True, processes=processes))
    job.check(question, event)
    carried: dict[str, Any] = {}
    return job.answer(question, lambda: silo_records(scenario, silo), event.times(plan.steps_per_round), carried)
