"""A scenario as a whole: what its sections have to agree on, and what it asks of one silo.

A scenario is public: it goes to the server and to every silo. Nothing in it may be computed from records that nobody
paid for; in particular sample rates, expected batch sizes, silo weights and reference ranges are declared, never
counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from fedmodel.config.audit import AuditConfig
from fedmodel.config.besides import Besides
from fedmodel.config.encryption import EncryptionConfig
from fedmodel.config.faults import FaultsConfig
from fedmodel.config.figures import Epsilon
from fedmodel.config.kinds import DataConfig, ModelConfig
from fedmodel.config.lots import Phase, phases_of
from fedmodel.config.privacy import PrivacyConfig, SiloPrivacyConfig
from fedmodel.config.purpose import PurposeConfig
from fedmodel.config.silos import FederationConfig
from fedmodel.config.training import TrainingConfig
from fedmodel.kinds.model import StartConfig
from fedmodel.kinds.own_names import names_own_or_one_on_board
from fedmodel.kinds.section import Positive, Section, is_inert, known_silos
from fedmodel.privacy.events import EXPERIMENT, MOST_STEPS, is_secret
from fedmodel.privacy.plan import Lots, SiloPlan

TRAINING: Final = "training"
"""The name of the job that every run is for."""
_MECHANISM: Final = "gaussian"
_SAID: Final[deque[tuple[Scenario, str]]] = deque(maxlen=16)
"""Scenarios that were written last, with their JSON. A copy is another object, so it never gets another's text."""


Metrics = Annotated[
    tuple[Annotated[str, AfterValidator(names_own_or_one_on_board)], ...], Field(strict=False, max_length=50)
]


class Scenario(Section):
    """One federation, from data to claim.

    Attributes:
        metrics: The figures that the server measures on its held-out records, besides the loss: names of the data's
            task (`fedmodel.learning.tasks`), which are looked up there by whoever runs the scenario; or functions of
            the user's own, as "package.module:function", which no silo imports.
    """

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
    # Left out of a document, and so of a scenario's hash, where nothing is said.
    besides: Besides = Field(default={}, exclude_if=lambda jobs: not jobs)
    purpose: PurposeConfig | None = Field(default=None, exclude_if=lambda said: said is None)
    metrics: Metrics = Field(default=(), exclude_if=lambda names: not names)

    @model_validator(mode="after")
    def _parts_fit(self) -> Scenario:
        known_silos(self.privacy.silo, self.federation.silos, "privacy.silo")
        known_silos(self.budgets, self.federation.silos, "budgets")
        self.data.check_silos(self.federation.silos)
        if self.privacy.unit == "person" and (reason := self.data.why_no_persons()) is not None:
            raise ValueError(f'privacy.unit = "person": {reason}')
        if (reason := self.model.why_not_on(self.data)) is not None:
            raise ValueError(reason)
        if self.privacy.baseline is not None and self.audit is not None:
            raise ValueError("privacy.baseline claims nothing that an audit could refute; leave one of the two out")
        if self.federation.sends_part and self.audit is not None:
            by = "update_share" if self.federation.update_rank is None else "update_rank"
            raise ValueError(
                f"federation.{by} sends a part of each update, and an audit holds sums to whole ones; leave one of the"
                " two out"
            )
        schedule = self.training.schedule
        if schedule is not None and schedule.warm_up_rounds >= self.rounds:
            raise ValueError(
                f"training.schedule.warm_up_rounds = {schedule.warm_up_rounds} leaves none of {self.rounds} rounds at"
                " the whole learning rate; warm up in fewer"
            )
        self._check_lots()
        if TRAINING in self.besides:
            raise ValueError("besides names training, which every run does anyway; leave it out")
        if self.besides and (left := "audit" if self.audit is not None else self.privacy.baseline and "baseline"):
            raise ValueError(f"besides is released beside what {left} measures, which is training alone; leave it out")
        if not is_secret(self.privacy.noise) and self.seed is None:
            raise ValueError(f'privacy.noise = "{self.privacy.noise}" needs a seed')
        if self.audit is not None and self.privacy.noise == EXPERIMENT:
            raise ValueError('privacy.noise = "experiment" claims nothing that an audit could refute; leave one out')
        for silo in self.federation.silos:
            steps = sum(plan.steps for plan in self.plans(silo))
            if steps > MOST_STEPS:
                raise ValueError(
                    f"silo {silo!r} would take {steps} steps in {self.rounds} rounds, more than {MOST_STEPS}"
                )
        return self

    def _check_lots(self) -> None:
        """Refuse lots that grow past a run, past all records, or in what measures one rate."""
        grown = self.training.lots
        if not grown:
            return
        if grown[-1].from_round > self.rounds:
            raise ValueError(
                f"training.lots: from_round = {grown[-1].from_round} is past the {self.rounds} rounds of the run;"
                " leave it out"
            )
        if self.audit is not None:
            raise ValueError(
                "training.lots grows lots, and an audit's canaries are planned for one rate; leave one of the two out"
            )
        for silo in self.federation.silos:
            rates, divisors = zip(*self._lots(silo), strict=True)
            if rates[-1] > 1:
                raise ValueError(
                    f"training.lots: {grown[-1].times:g} times the sample rate {rates[0]:g} of silo {silo!r} is"
                    f" {rates[-1]}, and no record is more than once in a lot; grow them less, or begin smaller"
                )
            if any(after <= before for before, after in pairwise(divisors)):
                raise ValueError(
                    f"training.lots: expected_batch_size = {divisors[0]} of silo {silo!r} is too small to grow so"
                    f" little: divisors would be {', '.join(map(str, divisors))}; grow lots by more at once"
                )

    @property
    def json_text(self) -> str:
        """The scenario as JSON, written once for each object."""
        for known, text in tuple(_SAID):
            if known is self:
                return text
        text = self.model_dump_json()
        _SAID.appendleft((self, text))
        return text

    @property
    def start(self) -> StartConfig | None:
        """The file that the run begins from, None where it begins from none."""
        return self.model.init if isinstance(self.model.init, StartConfig) else None

    @property
    def goes_on(self) -> bool:
        """Whether the run begins from a run's model, so that what it releases tells of both."""
        return self.start is not None and self.start.trained_on == "run"

    @property
    def own_code(self) -> dict[str, str]:
        """What of the scenario is code of the user's own, by the key that names it."""
        found = {
            "model.use": self.model.code,
            "training.loss": self.training.loss if ":" in self.training.loss else None,
            "data.use": getattr(self.data, "use", None),
            "data.partition.use": getattr(getattr(self.data, "partition", None), "use", None),
            "federation.strategy": self.federation.strategy if ":" in self.federation.strategy else None,
        }
        figures = {f"metrics[{place}]": name for place, name in enumerate(self.metrics) if ":" in name}
        return {key: use for key, use in found.items() if use is not None} | figures

    @property
    def silos_code(self) -> dict[str, str]:
        """What of it a silo imports: all but figures and the strategy, which are the server's alone."""
        return {key: use for key, use in self.own_code.items() if not key.startswith(("metrics[", "federation."))}

    def begun(self, start: StartConfig) -> Scenario:
        """Return the scenario with another start."""
        return self.model_copy(update={"model": self.model.model_copy(update={"init": start})})

    @property
    def carries_state(self) -> bool:
        """Whether silos carry anything from one round into the next besides the model."""
        return self.training.keep_optimizer_state

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The run's rounds of training by how large lots are: one phase where they do not grow."""
        return phases_of(self.training.lots, self.rounds)

    @property
    def last_round(self) -> int:
        """The number of the last round: those of training come first, then one for each job besides, in their order."""
        return self.rounds + len(self.besides)

    def job_of(self, number: int) -> str:
        """Return the job that a round, from 1 to the last, is of."""
        return (TRAINING, *self.besides)[max(0, number - self.rounds)]

    def part_of(self, number: int) -> int:
        """Return the part of a run's reservation that a round is charged to: training's phases come first, from 0."""
        return self.phase_of(number) + max(0, number - self.rounds)

    def phase_of(self, number: int) -> int:
        """Return the phase of training that a round belongs to, from 0; the last one's for whatever comes after it."""
        return sum(phase.first <= number for phase in self.phases) - 1

    def federation_of(self, job: str) -> FederationConfig:
        """Return the federation as a job counts its silos: by their weights in training, and else each once."""
        return self.federation if job == TRAINING else self.federation.model_copy(update={"weights": {}})

    def plan_besides(self, silo: str, job: str) -> SiloPlan:
        """Return what a job besides training asks of the silo: one sum over all of its records.

        A record's part of it has the clip of the whole run, so that a law's limit of that holds of it too; whoever
        makes the sum takes the clip out again.
        """
        return replace(
            self.plan(silo),
            epsilon=None,
            noise_multiplier=self.besides[job].noise_multiplier,
            sample_rate=1.0,
            expected_batch_size=1,
            steps_per_round=1,
            rounds=1,
            mechanism=_MECHANISM,
            besides=(),
            lots=(),
        )

    def plans(self, silo: str) -> tuple[SiloPlan, ...]:
        """Return what the silo is asked to train in each phase, in order."""
        return tuple(self.plan(silo, part) for part in range(len(self.phases)))

    def _lots(self, silo: str) -> list[tuple[float, int]]:
        """Return at which rate a silo's lots are drawn in each phase, and what their sums are divided by."""
        shared, own = self.privacy, self.privacy.silo.get(silo, SiloPrivacyConfig())
        sample_rate = shared.sample_rate if own.sample_rate is None else own.sample_rate
        batch = shared.expected_batch_size if own.expected_batch_size is None else own.expected_batch_size
        return [(sample_rate * phase.times, phase.divisor(batch)) for phase in self.phases]

    def plan(self, silo: str, part: int = 0) -> SiloPlan:
        """Return what the silo is asked to train, its own declarations laid over the shared ones.

        Args:
            silo: Its name.
            part: Which phase of training, from 0, where lots grow. Unit, clip, delta, noise and where it comes from are
                all phases'; rate, divisor, steps and rounds are this one's.
        """
        return _plan(_Asked(self.json_text, self, silo, part))

    def _plan(self, silo: str, part: int) -> SiloPlan:
        """Return what the silo is asked to train, computed anew."""
        shared = self.privacy
        own = shared.silo.get(silo, SiloPrivacyConfig())
        target_is_own = own.epsilon is not None or own.noise_multiplier is not None
        phases, lots = self.phases, self._lots(silo)
        steps = [self.training.steps_per_round(rate) for rate, _ in lots]
        sample_rate, batch = lots[part]
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
            steps_per_round=steps[part],
            rounds=phases[part].rounds,
            noise=shared.noise,
            baseline=shared.baseline,
            mechanism=shared.mechanism,
            besides=tuple(job.noise_multiplier for job in self.besides.values()),
            lots=tuple(
                Lots(rate, each * phase.rounds, divisor)
                for (rate, divisor), each, phase in zip(lots, steps, phases, strict=True)
                if len(lots) > 1
            ),
        )


@dataclass(frozen=True)
class _Asked:
    """A plan that is asked for; two are equal whose scenarios say the same."""

    text: str
    scenario: Scenario = field(compare=False)
    silo: str
    part: int


def forget_plans() -> None:
    """Forget the plans that were made, where what makes them is another by now."""
    _plan.cache_clear()


@lru_cache(maxsize=1 << 12)
def _plan(asked: _Asked) -> SiloPlan:
    """Return a plan, computed once for equal scenarios."""
    return asked.scenario._plan(asked.silo, asked.part)  # noqa: SLF001 - the other half of `Scenario.plan`
