"""Whether a run's model is of use at all, and what is likeliest to blame where it is not.

Written to `usefulness.json` at the run's end, from the model and the server's own held-out records, and from what is
public: the scenario, the number of parameters and what silos charge. No figure comes from a silo's records except
through the differentially private model.

A step is compared with its noise as it is at best. The mean of a lot's clipped gradients has a length of the clip C at
most where a lot is as large as its divisor. The noise of the cohort's average is `C sqrt(sum of (w z / B)^2)` in each
of P coordinates, for silos of relative weight w, noise multiplier z and divisor B, so `sqrt(P)` times that in length.
The ratio of the two is an upper bound of a step's signal over its noise, for lots no larger than the divisor.

Where a part of each update is sent, the mean is right on average only, and its noise is put back larger: the variance
grows by P / K of a share, and by n / r of each matrix at a low rank (`fedmodel.learning.pattern`). The ratio and the
noise of a coordinate are of what is put back. What leaving words out adds to a mean besides is not counted.

| Cause         | Named where                                                                                  |
|---------------|----------------------------------------------------------------------------------------------|
| noise         | that ratio is under 1: even at best the noise of a step is longer than its signal            |
| too small     | all steps of a silo together are shorter than 1, by plain SGD: `rate C steps / (1 - momentum)`|
| too large     | noise alone moves a coordinate by more than 1 over all steps: `rate noise sqrt(steps)`        |
| lots          | always: how many records a silo has is the silo's to know, so each compares for itself       |

Under a schedule `rate` is the mean of all rounds' rates, and beside noise the root of the mean of their squares. Where
lots grow the ratio is that of the largest, and each round adds its own steps and noise.

Does NOT find out why: these are what to look at first. How large lots really were is not known here, on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.learning.pattern import noise_grows
from fedmodel.learning.tasks import objective
from fedmodel.learning.vectors import parameter_count
from fedmodel.plans import event_of_round
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
        charges: By silo, what it charges for a round; of the first phase, where lots grow.
        device: Where the model is.

    Returns:
        one_class: The label that alone is predicted, where records of another are there; None where there are two.
        loss: Of the model.
        base_loss: Of the best answer that is one for all records: the shares of the classes, or what `knows_nothing`
            says; None of a loss of which it is not known.
        signal_to_noise: Of a step, at best; None where no noise is added.
        put_back: By how much the variance of noise grows, on average over coordinates; not there where updates are sent
            whole.
        noise_walk: How far noise alone moves a coordinate in all steps, one standard deviation, of the one that it
            moves most; None where another strategy than federated averaging makes a step of its own of the mean.
        reach: How far all steps of a silo move its model at most; None there too, and of other optimizers than SGD.
        supposed: By silo, for how many records its divisor and rate are made.
    """
    aim = objective(scenario.data.shape, scenario.training.loss)
    found = measured(module, aim, test, device)
    silos, training, clip = sorted(charges), scenario.training, scenario.privacy.max_grad_norm
    rate, rounds = training.learning_rate, range(1, scenario.rounds + 1)
    spreads = [clip * _relative_noise(scenario, charges, phase.first) for phase in scenario.phases]
    steps = [min(scenario.plan(silo, part).steps_per_round for silo in silos) for part in range(len(spreads))]
    # Of each round: how many steps, their share of the rate, and how far one step's noise moves a coordinate.
    each = [
        (steps[part], training.rate(number, scenario.rounds) / rate, training.noise_step(spreads[part]))
        for number, part in ((number, scenario.phase_of(number)) for number in rounds)
    ]
    adds = scenario.federation.strategy == "fedavg"
    parameters = parameter_count(module)
    grown, grown_most = noise_grows(scenario, parameters)
    walk = rate * math.sqrt(grown_most * math.fsum(taken * (share * moved) ** 2 for taken, share, moved in each))
    reach = rate * clip * math.fsum(taken * share for taken, share, _ in each) / (1 - training.momentum)
    return {
        **({} if aim.task.reads_labels else {"knows_nothing": aim.task.knows_nothing}),
        "one_class": aim.task.one_answer(found),
        "loss": found.mean_loss,
        "base_loss": aim.task.base_loss(aim.loss, test.y_N),
        "signal_to_noise": clip / (spreads[-1] * math.sqrt(grown * parameters)) if spreads[-1] else None,
        **({"put_back": grown} if scenario.federation.sends_part else {}),
        "noise_walk": walk if adds else None,
        "reach": reach if adds and training.optimizer == "sgd" else None,
        "supposed": {
            plan.silo: round(plan.expected_batch_size / plan.sample_rate) for plan in map(scenario.plan, silos)
        },
    }


def _relative_noise(scenario: Scenario, charges: Mapping[str, Event], number: int) -> float:
    """Return the noise of the average of a cohort's steps in a round, over the clip: one standard deviation."""
    federation = scenario.federation
    events = {silo: event_of_round(scenario, silo, event, number) for silo, event in charges.items()}
    whole = sum(federation.weight(silo) for silo in charges)
    of_all = sum(
        (federation.weight(silo) / whole * event.noise_multiplier / event.denominator) ** 2
        for silo, event in events.items()
    )
    # A smaller cohort averages less away.
    return math.sqrt(of_all * len(charges) / min(federation.cohort_size, len(charges)))
