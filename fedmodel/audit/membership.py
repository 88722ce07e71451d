"""Membership inference on the final model: does it tell records that it was trained on from others?

| Attack           | Score of a record x, higher for a member                                                        |
|------------------|-------------------------------------------------------------------------------------------------|
| `loss-threshold` | minus its loss (Yeom et al. 2018, section 3, the adversary with a threshold)                    |
| `rmia`           | the share of population records z with LR(x, z) >= 1 (Zarifzadeh, Liu and Shokri 2024)          |

RMIA here is offline, with one reference model. LR(x, z) = (Pr(x|model) / Pr(x)) / (Pr(z|model) / Pr(z)), where Pr(x) is
the mean of what models with x and models without would give it. Offline there are only models without; what the others
would give is taken to be a Pr_out(x) + 1 - a, with a = 0.3 as in the authors' code. LR = 1 counts as half, so that a
record that is in the population too neither gains nor loses by it.

Everything here is an estimate, without confidence: a plug-in, its threshold picked where it looks best. It stands
beside the bounds of the audit and is none. A model of which it finds nothing may still leak to another attack.

Needs records: it is for whoever holds the members' records, as a simulation does. Sensitive: scores, and figures
computed from them, which no budget was charged for.

Shapes: N records, M members, O records that are not, Z of the population.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.config import ModelConfig, Scenario
from fedmodel.data import Records
from fedmodel.data.named import each
from fedmodel.errors import ConfigError
from fedmodel.learning.inputs import called, rows_at_once, taken, tensors, tokens_in
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Objective, objective
from fedmodel.learning.tasks._own import is_own
from fedmodel.seeds import derive_seed

NOTE: Final = (
    "estimate, no confidence: epsilon_estimate is the largest log((TPR - delta) / FPR) over thresholds, where fewer"
    " than 10 false alarms count as 10; it can be above or below the truth, and is no bound"
)
LEAST_FALSE_ALARMS: Final = 10
LEAST_RECORDS: Final = 20  # of members and of others: below, no rate here means anything

AttackName = Literal["loss-threshold", "rmia"]

_OFFLINE_A: Final = 0.3
_STEPS: Final = 200
_MOST_REFERENCE_RECORDS: Final = 2_000  # with the steps, what keeps a reference model a matter of seconds
_MOST_REFERENCE_TOKENS: Final = 2**18  # that it is shown in all its steps: what stands on a base takes long for each
_LEARNING_RATE: Final = 0.02


@dataclass(frozen=True)
class Attack:
    """What an attack achieved.

    Attributes:
        name: Which.
        auc: Area under its ROC curve; 0.5 is guessing.
        tpr_at_1pct_fpr: The largest true-positive rate of a threshold whose false-positive rate is at most 1%.
        epsilon_estimate: As `NOTE` says; at most log(others / 10).
    """

    name: AttackName
    auc: float
    tpr_at_1pct_fpr: float
    epsilon_estimate: float


def attacks(module: nn.Module, scenario: Scenario, members: Records, held_out: Records) -> tuple[Attack, ...]:
    """Attack a model, with half of the held-out records for a reference model and half as records that are not members.

    Args:
        module: The final model.
        scenario: That it was trained by: gives the loss (without class weights), the reference model's architecture,
            delta and the seed.
        members: Records that it was trained on. Sensitive.
        held_out: Records that it was not trained on. The records of one person fall into one half.

    Raises:
        ConfigError: When there are too few records, or the model's outputs are not finite.
    """
    seed = derive_seed(scenario.seed or 0, "membership")
    reference_half, others = _halves(held_out, seed)
    _check_enough(members=len(members), others=len(others))
    aim = objective(scenario.data.shape, scenario.training.loss)
    reference = train_reference(scenario.model, aim, reference_half, seed)
    delta = max(scenario.plan(silo).delta for silo in scenario.federation.silos)
    return (
        loss_threshold(module, aim, members, others, delta),
        rmia(module, aim, members, others, reference, others, delta),
    )


def loss_threshold(module: nn.Module, aim: Objective, members: Records, others: Records, delta: float) -> Attack:
    """Attack by the loss of each record."""
    in_M, out_O = (-record_losses(module, aim, records) for records in (members, others))
    return measured("loss-threshold", in_M, out_O, delta)


def rmia(
    module: nn.Module,
    aim: Objective,
    members: Records,
    others: Records,
    reference: nn.Module,
    population: Records,
    delta: float,
) -> Attack:
    """Attack by likelihood ratios against a population.

    Args:
        module: The model under attack.
        aim: The task and its loss.
        members: Records that it was trained on.
        others: Records that it was not trained on.
        reference: A model that was trained on none of all these records.
        population: Records that neither was trained on; they may be the others.
        delta: Of the claim.
    """
    ratios = [
        likelihood_ratio(true_probabilities(module, aim, records), true_probabilities(reference, aim, records))
        for records in (members, others, population)
    ]
    return measured("rmia", rmia_scores(ratios[0], ratios[2]), rmia_scores(ratios[1], ratios[2]), delta)


def likelihood_ratio(
    model_N: NDArray[np.float64], reference_N: NDArray[np.float64], a: float = _OFFLINE_A
) -> NDArray[np.float64]:
    """Return Pr(x|model) / Pr(x) of each record, Pr(x) from the reference model that never saw it.

    >>> likelihood_ratio(np.array([0.9]), np.array([0.4]), a=0.5).round(4).tolist()
    [1.6364]
    """
    ratio_N: NDArray[np.float64] = model_N / (((1 + a) * reference_N + 1 - a) / 2)
    return ratio_N


def rmia_scores(ratio_N: NDArray[np.float64], ratio_Z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the population that each record dominates, ties as half.

    >>> rmia_scores(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.5])).tolist()
    [0.0, 0.25, 1.0]
    """
    sorted_Z = np.sort(ratio_Z)
    counted_N = np.searchsorted(sorted_Z, ratio_N, "left") + np.searchsorted(sorted_Z, ratio_N, "right")
    score_N: NDArray[np.float64] = counted_N / (2 * len(ratio_Z))
    return score_N


def measured(name: AttackName, in_M: NDArray[np.float64], out_O: NDArray[np.float64], delta: float) -> Attack:
    """Return what thresholds on the scores achieve; records with one score are told apart by none.

    Args:
        name: Of the attack.
        in_M: Scores of members.
        out_O: Scores of the others.
        delta: Of the claim, in [0, 1).

    Raises:
        ConfigError: When there are too few scores, or one is not a number.
    """
    _check_enough(members=len(in_M), others=len(out_O))
    if np.isnan(in_M).any() or np.isnan(out_O).any() or not 0 <= delta < 1:
        raise ConfigError("a score of membership inference is not a number, or delta is not in [0, 1)")
    sorted_M, sorted_O = np.sort(in_M), np.sort(out_O)
    threshold_T = np.unique(np.concatenate([in_M, out_O]))  # "member" from the threshold on
    caught_T = len(in_M) - np.searchsorted(sorted_M, threshold_T, "left")
    false_T = len(out_O) - np.searchsorted(sorted_O, threshold_T, "left")
    # Mann and Whitney's: the share of pairs in which the member scores higher, ties as half.
    below_M = np.searchsorted(sorted_O, in_M, "left") + np.searchsorted(sorted_O, in_M, "right")
    found_T = caught_T[100 * false_T <= len(out_O)] / len(in_M)
    odds_T = (caught_T / len(in_M) - delta) / (np.maximum(false_T, LEAST_FALSE_ALARMS) / len(out_O))
    return Attack(
        name=name,
        auc=float(below_M.mean()) / (2 * len(out_O)),
        tpr_at_1pct_fpr=float(found_T.max(initial=0.0)),
        epsilon_estimate=math.log(max(1.0, float(odds_T.max()))),
    )


def record_losses(module: nn.Module, aim: Objective, records: Records) -> NDArray[np.float64]:
    """Return each record's loss, float64 of shape `(N,)`.

    Losses of the user's own are called as training calls them, on a batch and on outputs of the model's own type: what
    was measured of them before the run is all that is asked of them here.

    Raises:
        ConfigError: When the model diverged, or the records do not fit it.
    """
    dtype = next(module.parameters()).dtype
    own = is_own(aim.loss)
    with torch.no_grad():
        parts = [
            aim.losses(output_B.to(dtype), target_B).double()
            if own
            else torch.vmap(partial(_loss_of_one, aim))(output_B, target_B)
            for output_B, target_B in _outputs(module, aim, records)
        ]
    return torch.cat(parts).cpu().numpy()


def true_probabilities(module: nn.Module, aim: Objective, records: Records) -> NDArray[np.float64]:
    """Return what the model gives each record's own target, float64 of shape `(N,)`.

    Raises:
        ConfigError: When the model diverged, or the records do not fit it.
    """
    parts = [aim.task.likelihoods(aim.loss, *batch) for batch in _outputs(module, aim, records)]
    return torch.cat(parts).cpu().numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, so that results are the same on any number of cores; and busy ones slow it down less."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def train_reference(config: ModelConfig, aim: Objective, records: Records, seed: int) -> nn.Module:
    """Train a model without privacy on records that are not members: the same for the same records and seed.

    Args:
        config: The architecture under attack; dropout is left out.
        aim: The task, of records of one shape, and its loss.
        records: What it is trained on, all at every step; of more than 2,000, as many that the seed draws. Of texts
            each step takes the next few, so that all steps together take no more than 2^18 tokens.
        seed: Decides its initial parameters.

    Raises:
        ConfigError: When there are no records.
    """
    if not len(records):
        raise ConfigError("a reference model needs records; declare a larger data.held_out")
    if len(records) > _MOST_REFERENCE_RECORDS:
        drawn = np.random.default_rng(derive_seed(seed, "reference-records")).permutation(len(records))
        records = records.take(drawn[:_MOST_REFERENCE_RECORDS])
    module = build_model(config, aim.task.shape, derive_seed(seed, "reference")).eval()
    optimizer = torch.optim.Adam(module.parameters(), lr=_LEARNING_RATE)
    x_N, y_N = tensors(records, torch.device("cpu"))
    length = tokens_in(aim.task.shape)
    rows = min(len(records), max(1, _MOST_REFERENCE_TOKENS // (_STEPS * length)) if length else len(records))
    for step in range(_STEPS):
        index_B = torch.arange(step * rows, (step + 1) * rows) % len(records)  # all, in order, where all are taken
        optimizer.zero_grad()
        torch.autograd.backward(aim.losses(called(module, taken(x_N, index_B)), y_N[index_B]).sum() / rows)
        optimizer.step()
    return module


def _loss_of_one(aim: Objective, output_K: Tensor, target: Tensor) -> Tensor:
    return aim.losses(output_K[None], target[None]).sum()


@_one_thread()
def _outputs(module: nn.Module, aim: Objective, records: Records) -> list[tuple[Tensor, Tensor]]:
    """Return outputs in float64 and labels, batch by batch."""
    if not len(records):
        raise ConfigError("membership inference was given no records")
    device = next(module.parameters()).device
    training, rows = module.training, rows_at_once(aim.task.shape)
    module.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(records), rows):
            x_B, label_B = tensors(records.take(slice(start, start + rows)), device)
            found.append((called(module, each(x_B, torch.clone)).double(), label_B))
    module.train(training)
    if not all(bool(torch.isfinite(output_BK).all()) for output_BK, _ in found):
        raise ConfigError("a model of membership inference has outputs that are not finite; no estimate is made")
    return found


def _halves(records: Records, seed: int) -> tuple[Records, Records]:
    """Return two halves of the records, each person's in one of them, in stored order."""
    persons = np.random.default_rng(derive_seed(seed, "halves")).permutation(np.unique(records.person_N))
    first_N = np.isin(records.person_N, persons[: len(persons) // 2])
    return records.take(np.flatnonzero(first_N)), records.take(np.flatnonzero(~first_N))


def _check_enough(*, members: int, others: int) -> None:
    """Refuse too few records, without saying how many there are."""
    for kind, count in (("members", members), ("records that are not members", others)):
        if count < LEAST_RECORDS:
            raise ConfigError(
                f"membership inference needs at least {LEAST_RECORDS} {kind}, and here are fewer; use more data or a"
                " larger data.held_out"
            )
