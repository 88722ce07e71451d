"""The section `training`: loss, optimiser, steps, and how finely a step is resolved."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fedmodel.config.lots import Lots, check_growth
from fedmodel.config.schedule import ScheduleConfig
from fedmodel.config.silos import LEAST_WEIGHT, MOST_WEIGHT
from fedmodel.kinds.own_names import names_own_or_one_on_board
from fedmodel.kinds.section import Section
from fedmodel.privacy.events import MOST_STEPS

_AUTO: Final = "auto"

Precision = Literal["float32", "bf16"]
"""In which a model computes as it trains."""


class TrainingConfig(Section):
    """How a silo trains between two exchanges with the server.

    Attributes:
        loss: The name of one of the losses of the data's task (`fedmodel.learning.tasks`), which is looked up there by
            whoever runs the scenario; or a function of the user's own, as "package.module:function".
        class_weights: What the loss of a record is multiplied with, by its label: a weight for each class, in the order
            of labels. Public constants, never counted from records. They go in before the clip, so that a record moves
            a sum by at most the clip whatever its weight, and nothing is divided by a sum of them.
        gradients: How the clipped sum of a lot is computed: the name of a kind in `fedmodel.learning.gradients`, which
            is looked up there by whoever runs the scenario. Each kind computes the same function of the records.
        max_physical_batch: Most records in memory at once; "auto" for as many as fit, by a probe on made-up records
            (`fedmodel.learning.memory`).
        schedule: Which share of `learning_rate` each round has; None for all of it in every round.
        lots: From which rounds on lots are how many times as large as in the first; none where they do not grow. Each
            step is charged at its own rate, and a target is of all of them (`fedmodel.plans`).
        ema_decay: The decay of an exponential moving average of the models after each round, which is then the run's
            model (`fedmodel.learning.averaging`); None where that is the model after the last round.
        precision: In which a model computes as it trains (`fedmodel.learning.precision`): "bf16" is mixed precision,
            whose norms, sums and noise are float32 and above. It costs no privacy: what is measured before training is
            measured in it.
        threads: How many threads of a processor a silo trains with, at most one for each core; "auto" for all cores, or
            a silo's share of them where several train at once. It costs no privacy: what is measured before training is
            measured with as many.
        proximal: FedProx's mu (Li et al. 2020): each step adds mu times the difference from the model received to the
            noised gradient (`fedmodel.learning.optimizers.hold_near`). It costs no privacy; 0 adds nothing.
    """

    loss: Annotated[str, AfterValidator(names_own_or_one_on_board)]
    optimizer: Literal["sgd", "adam", "adagrad"]
    learning_rate: float = Field(gt=0, le=1e6)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    local_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    local_epochs: int | None = Field(default=None, ge=1, le=10_000)
    keep_optimizer_state: bool = False
    max_physical_batch: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = 512
    # Left out of what is hashed where it is not said: scenarios from before it keep the hash that silos admit.
    class_weights: Annotated[tuple[float, ...], Field(strict=False, max_length=1_000)] | None = Field(
        default=None, exclude_if=lambda weights: weights is None
    )

    # What a file says is in its hash but for the default, of which files from before it say nothing: "per-sample", the
    # default once, says something else than they do now, and is another computation.
    gradients: str = Field(default=_AUTO, pattern=r"^[a-z0-9-]{1,40}$", exclude_if=lambda name: name == _AUTO)
    threads: Annotated[int, Field(ge=1, le=1_024)] | Literal["auto"] = Field(
        default=1, exclude_if=lambda number: number == 1
    )
    precision: Precision = Field(default="float32", exclude_if=lambda name: name == "float32")
    proximal: float = Field(default=0.0, ge=0, le=1e6, exclude_if=lambda mu: mu == 0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1, exclude_if=lambda decay: decay is None)
    schedule: ScheduleConfig | None = Field(default=None, exclude_if=lambda said: said is None)
    lots: Lots = Field(default=(), exclude_if=lambda grown: not grown)

    @field_validator("class_weights")
    @classmethod
    def _weights_are_bounded(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for place, weight in enumerate(value or ()):
            if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
                raise ValueError(
                    f"the weight of class {place} is {weight:g}, and has to be from 2^-20 to 2^20, some 0.000001 to"
                    " 1000000; only how it compares to the others matters much"
                )
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> TrainingConfig:
        check_growth(self.lots)
        if self.class_weights is not None and self.loss != "cross-entropy":
            raise ValueError(f'class_weights belongs to loss = "cross-entropy", found {self.loss!r}; leave it out')
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("give exactly one of local_steps and local_epochs")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f'momentum belongs to optimizer = "sgd", found {self.optimizer!r}')
        if self.pull >= (most := 2 * (1 + self.momentum)):
            raise ValueError(
                f"proximal times learning_rate is {self.pull:g}: from {most:g} on, each step overshoots the model that"
                " it pulls back to by more than the last; lower one of them"
            )
        if self.proximal and self.keep_optimizer_state:
            raise ValueError(
                "keep_optimizer_state keeps what pulled towards the model of an earlier round, and proximal pulls"
                " towards this round's; leave one of the two out"
            )
        if self.proximal and self.schedule is not None and self.local_steps is None:
            raise ValueError(
                "proximal pulls by another share in each round of a schedule, so that silos that take different numbers"
                " of steps would weigh otherwise in each; say local_steps in place of local_epochs, or leave one of"
                " the two out"
            )
        return self

    @property
    def pull(self) -> float:
        """What share of the way to the model received the proximal term alone goes in one step of SGD; 0 of others.

        Of a schedule it is the most that any round has.
        """
        return self.learning_rate * self.proximal if self.optimizer == "sgd" else 0.0

    def rate(self, number: int, rounds: int) -> float:
        """Return the learning rate of a round.

        Args:
            number: The round, from 1 to `rounds`.
            rounds: Of the run.
        """
        return self.learning_rate * (1.0 if self.schedule is None else self.schedule.share(number, rounds))

    def least_rate(self, rounds: int) -> float:
        """Return the least learning rate of a run's rounds: the first's or the last's, since none between is less."""
        return min(self.rate(1, rounds), self.rate(rounds, rounds))

    def noise_step(self, noise: float) -> float:
        """Return how far noise moves a coordinate in one step at a learning rate of 1, at least.

        Args:
            noise: Of a noised gradient's coordinate, one standard deviation.
        """
        return noise if self.optimizer == "sgd" else min(1.0, noise)

    def steps_per_round(self, sample_rate: float) -> int:
        """Return the DP-SGD steps of one round: the single source for the plan and for the loop.

        An epoch of lots drawn at rate q is 1/q steps, rounded to nearest. Truncating instead, as `int(1 / q)` does,
        plans n - 1 steps where n are run for 312 of the rates 1/n with n up to 5,000.

        >>> config = TrainingConfig(loss="mse", optimizer="sgd", learning_rate=1.0, local_epochs=1)
        >>> config.steps_per_round(1 / 49)
        49
        """
        if self.local_steps is not None:
            return self.local_steps
        return max(1, round((self.local_epochs or 1) / sample_rate))
