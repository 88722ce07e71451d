"""Whether a run's model is of use at all, and what is likeliest to blame where it is not.

Written to `usefulness.json` at the run's end, from the model and the server's own held-out records, and from what is
public: the scenario, the number of parameters and what silos charge. No figure comes from a silo's records except
through the differentially private model.

A step is compared with its noise as it is at best. The mean of a lot's clipped gradients has a length of the clip C at
most where a lot is as large as its divisor. The noise of the cohort's average is `C sqrt(sum of (w z / B)^2)` in each
of P coordinates, for silos of relative weight w, noise multiplier z and divisor B, so `sqrt(P)` times that in length.
The ratio of the two is an upper bound of a step's signal over its noise, for lots no larger than the divisor.

| Cause         | Named where                                                                                  |
|---------------|----------------------------------------------------------------------------------------------|
| noise         | that ratio is under 1: even at best the noise of a step is longer than its signal            |
| too small     | all steps of a silo together are shorter than 1, by plain SGD: `rate C steps / (1 - momentum)`|
| too large     | noise alone moves a coordinate by more than 1 over all steps: `rate noise sqrt(steps)`        |
| lots          | always: how many records a silo has is the silo's to know, so each compares for itself       |

Under a schedule `rate` is the mean of all rounds' rates, and beside noise the root of the mean of their squares.

Does NOT find out why: these are what to look at first. How large lots really were is not known here, on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

import torch
from torch import nn

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.learning.tasks import objective
from fedmodel.learning.vectors import parameter_count
from fedmodel.privacy.events import Event
from server.metrics import measured

USEFULNESS: Final = "usefulness.json"


def usefulness(
    module: nn.Module, scenario: Scenario, test: Records, charges: Mapping[str, Event], device: torch.device
) -> dict[str, Any]:
    """Return how the model compares with knowing nothing, and the public figures of a step.

    Args:
        module: The model, on the device.
        scenario: What was done.
        test: The server's held-out records.
        charges: By silo, what it charges for a round.
        device: Where the model is.

    Returns:
        one_class: The label that alone is predicted, where records of another are there; None where there are two.
        loss: Of the model.
        base_loss: Of the best answer that is one for all records: the shares of the classes, or what `knows_nothing`
            says; None of a loss of which it is not known.
        signal_to_noise: Of a step, at best; None where no noise is added.
        noise_walk: How far noise alone moves a coordinate in all steps, one standard deviation; None where another
            strategy than federated averaging makes a step of its own of the mean.
        reach: How far all steps of a silo move its model at most; None there too, and of other optimizers than SGD.
        supposed: By silo, for how many records its divisor and rate are made.
    """
    aim = objective(scenario.data.shape, scenario.training.loss)
    found = measured(module, aim, test, device)
    plans = [scenario.plan(silo) for silo in sorted(charges)]
    steps = min(plan.steps for plan in plans)
    clip, training = scenario.privacy.max_grad_norm, scenario.training
    rate, rounds = training.learning_rate, scenario.rounds
    shares = [training.rate(number, rounds) / rate for number in range(1, rounds + 1)]
    spread = clip * _relative_noise(scenario, charges)
    adds = scenario.federation.strategy == "fedavg"
    return {
        **({} if aim.task.reads_labels else {"knows_nothing": aim.task.knows_nothing}),
        "one_class": aim.task.one_answer(found),
        "loss": found.mean_loss,
        "base_loss": aim.task.base_loss(aim.loss, test.y_N),
        "signal_to_noise": clip / (spread * math.sqrt(parameter_count(module))) if spread else None,
        "noise_walk": rate * training.noise_step(spread) * _root_mean_square(shares) * math.sqrt(steps)
        if adds
        else None,
        "reach": rate * fmean(shares) * clip * steps / (1 - training.momentum)
        if adds and training.optimizer == "sgd"
        else None,
        "supposed": {plan.silo: round(plan.expected_batch_size / plan.sample_rate) for plan in plans},
    }


def _root_mean_square(values: list[float]) -> float:
    return math.sqrt(fmean(value**2 for value in values))


def _relative_noise(scenario: Scenario, charges: Mapping[str, Event]) -> float:
    """Return the noise of the average of a cohort's steps, over the clip: one standard deviation of a coordinate."""
    federation = scenario.federation
    whole = sum(federation.weight(silo) for silo in charges)
    of_all = sum(
        (federation.weight(silo) / whole * event.noise_multiplier / event.denominator) ** 2
        for silo, event in charges.items()
    )
    # A smaller cohort averages less away.
    return math.sqrt(of_all * len(charges) / min(federation.cohort_size, len(charges)))
