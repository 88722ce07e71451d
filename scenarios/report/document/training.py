"""The section on usefulness: what the model is good for, and how the budget was spent on it."""

from __future__ import annotations

from pydantic import Field

from scenarios.report.document.forms import Epsilon, Questions
from scenarios.runs.explanation import Explanation
from scenarios.runs.parts import Moment, Part
from scenarios.runs.used import Used


class RoundFigures(Part):
    """One round, as the server measured it on its own held-out records.

    Attributes:
        round: Its number.
        failed: Whether it failed closed, with the model as it was.
        cohort: Silos that were asked.
        summed: Updates in the sum; 0 where the round failed.
        seconds: It took.
        figures: Such as "loss" and "accuracy".
    """

    round: int
    failed: bool
    cohort: int
    summed: int
    seconds: float
    figures: dict[str, float]


class BudgetPoint(Part):
    """What was spent after a charge.

    Attributes:
        time: Of the charge.
        epsilon: Of the steps of all runs until then, had every plan and its length been fixed in advance; on a coarser
            grid but for the last; null from the first charge on whose noise was seeded.
        cap: That held then.
    """

    time: Moment
    epsilon: Epsilon
    cap: float


class BudgetLine(Part):
    """How one silo's budget was spent over time.

    Attributes:
        silo: Whose.
        scope: Which budget.
        delta: At which.
        points: Oldest first; of many charges, evenly chosen ones, the last included.
    """

    silo: str
    scope: str
    delta: float
    points: tuple[BudgetPoint, ...]


class Training(Part):
    """What the model is good for, and how the budget was spent on it.

    Attributes:
        nist: The questions of NIST SP 800-226 that it answers.
        used: Which model, kind of gradients and strategy; left out of a report from before it was said.
        class_weights: What the loss of each class was multiplied with in training; left out where there were none.
        proximal: How strongly each step pulled back to the model received, FedProx's mu; left out where it did not.
        schedule: How the learning rate went over the rounds, in a few words; left out where it was one.
        ema_decay: Of the average of all rounds' models that the model is; left out where it is the last round's.
        usefulness: In a line, that the model is of no use, and what to look at first; left out where it is of some.
        explanation: How the model answers, where somebody explained it; left out where nobody did.
        left_out: Figures that were asked for and are not defined; not said of a classifier whose figures nobody named.
        figures: Of the last whole round, those that are defined there; the loss is not weighed by class.
        rounds: A row each.
        budgets: A line each.
    """

    nist: Questions = ("Is what is released accurate enough for its use?", "How was the budget spent over time?")
    # These are left out of what is signed where there is none: a report from before them verifies as it was.
    used: tuple[Used, ...] | None = Field(default=None, exclude_if=lambda used: used is None)
    class_weights: tuple[float, ...] | None = Field(default=None, exclude_if=lambda weights: weights is None)
    proximal: float | None = Field(default=None, exclude_if=lambda mu: mu is None)
    schedule: str | None = Field(default=None, exclude_if=lambda said: said is None)
    ema_decay: float | None = Field(default=None, exclude_if=lambda decay: decay is None)
    usefulness: str | None = Field(default=None, exclude_if=lambda line: line is None)
    left_out: tuple[str, ...] | None = Field(default=None, exclude_if=lambda names: names is None)
    explanation: Explanation | None = Field(default=None, exclude_if=lambda found: found is None)
    figures: dict[str, float]
    rounds: tuple[RoundFigures, ...]
    budgets: tuple[BudgetLine, ...]
