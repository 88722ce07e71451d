"""A scenario as a whole: what its sections have to agree on, and what it asks of one silo.

A scenario is public: it goes to the server and to every silo. Nothing in it may be computed from records that nobody
paid for; in particular sample rates, expected batch sizes, silo weights and reference ranges are declared, never
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from fedmodel.config.audit import AuditConfig
from fedmodel.config.encryption import EncryptionConfig
from fedmodel.config.faults import FaultsConfig
from fedmodel.config.figures import Epsilon
from fedmodel.config.kinds import DataConfig, ModelConfig
from fedmodel.config.privacy import PrivacyConfig, SiloPrivacyConfig
from fedmodel.config.silos import FederationConfig
from fedmodel.config.training import TrainingConfig
from fedmodel.kinds.model import StartConfig
from fedmodel.kinds.section import Positive, Section, is_inert, known_silos
from fedmodel.privacy.events import MOST_STEPS, Baseline, NoiseSourceName, UnitName


@dataclass(frozen=True)
class SiloPlan:
    """What one silo is asked to do over a whole run: the figures its claim is calibrated from.

    Attributes:
        silo: The silo's name.
        data: The data set.
        unit: The privacy unit; neighbours differ by adding or removing one of these.
        max_records: Most records of one unit that are trained on.
        delta: The delta of the claim.
        epsilon: The target, or None where the noise multiplier is given.
        noise_multiplier: The noise's standard deviation over the clip, or None where a target is given.
        max_grad_norm: The clip C, in the L2 norm of one record's gradient.
        sample_rate: The Poisson rate q of every lot, public.
        expected_batch_size: The public denominator of every step.
        steps_per_round: DP-SGD steps in one round.
        rounds: Rounds in the run, at most.
        noise: Where lots and noise are drawn from.
        baseline: What is left out of the run, which then protects nobody; None where nothing is.
    """

    silo: str
    data: str
    unit: UnitName
    max_records: int
    delta: float
    epsilon: float | None
    noise_multiplier: float | None
    max_grad_norm: float
    sample_rate: float
    expected_batch_size: int
    steps_per_round: int
    rounds: int
    noise: NoiseSourceName
    baseline: Baseline | None = None

    @property
    def target_epsilon(self) -> float | None:
        """The target that a run aims at: a baseline, whose `epsilon` is of the run that it is beside, has none."""
        return self.epsilon if self.baseline is None else None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_round * self.rounds


class Scenario(Section):
    """One federation, from data to claim."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    summary: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(is_inert)]
    rounds: int = Field(ge=1, le=100_000)
    stop_below_loss: Positive | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    data: DataConfig
    federation: FederationConfig
    model: ModelConfig
    training: TrainingConfig
    privacy: PrivacyConfig
    encryption: EncryptionConfig = EncryptionConfig()
    faults: FaultsConfig | None = None
    budgets: dict[str, Epsilon] = {}
    audit: AuditConfig | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Scenario:
        known_silos(self.privacy.silo, self.federation.silos, "privacy.silo")
        known_silos(self.budgets, self.federation.silos, "budgets")
        self.data.check_silos(self.federation.silos)
        if self.privacy.unit == "person" and (reason := self.data.why_no_persons()) is not None:
            raise ValueError(f'privacy.unit = "person": {reason}')
        if self.privacy.baseline is not None and self.audit is not None:
            raise ValueError("privacy.baseline claims nothing that an audit could refute; leave one of the two out")
        if self.privacy.noise == "seeded-unsafe" and self.seed is None:
            raise ValueError('privacy.noise = "seeded-unsafe" needs a seed')
        for silo in self.federation.silos:
            plan = self.plan(silo)
            if plan.steps > MOST_STEPS:
                raise ValueError(
                    f"silo {silo!r} would take {plan.steps} steps in {self.rounds} rounds, more than {MOST_STEPS}"
                )
        return self

    @property
    def start(self) -> StartConfig | None:
        """The file that the run begins from, None where it begins from none."""
        return self.model.init if isinstance(self.model.init, StartConfig) else None

    @property
    def goes_on(self) -> bool:
        """Whether the run begins from a run's model, so that what it releases tells of both."""
        return self.start is not None and self.start.trained_on == "run"

    def begun(self, start: StartConfig) -> Scenario:
        """Return the scenario with another start."""
        return self.model_copy(update={"model": self.model.model_copy(update={"init": start})})

    @property
    def carries_state(self) -> bool:
        """Whether silos carry anything from one round into the next besides the model."""
        return self.training.keep_optimizer_state

    def plan(self, silo: str) -> SiloPlan:
        """Return what the silo is asked to do, its own declarations laid over the shared ones."""
        shared = self.privacy
        own = shared.silo.get(silo, SiloPrivacyConfig())
        target_is_own = own.epsilon is not None or own.noise_multiplier is not None
        sample_rate = shared.sample_rate if own.sample_rate is None else own.sample_rate
        batch = shared.expected_batch_size if own.expected_batch_size is None else own.expected_batch_size
        return SiloPlan(
            silo=silo,
            data=self.data.data_set,
            unit=shared.unit,
            max_records=shared.max_records or 1,
            delta=shared.delta if own.delta is None else own.delta,
            epsilon=own.epsilon if target_is_own else shared.epsilon,
            noise_multiplier=own.noise_multiplier if target_is_own else shared.noise_multiplier,
            max_grad_norm=shared.max_grad_norm,
            sample_rate=sample_rate,
            expected_batch_size=batch,
            steps_per_round=self.training.steps_per_round(sample_rate),
            rounds=self.rounds,
            noise=shared.noise,
            baseline=shared.baseline,
        )
