"""The faults that an audit is tried on: what is planted, in which run, and the check that must catch it.

    full       every record in every lot, one step a round                      noise, clips, seeds, charges
    sampled    a quarter of all records in a lot, ten steps a round, classes    lots, divisors, rates, weights
               that weigh differently
    dropouts   secure aggregation, and silos whose answers are lost             what the sum is made of
    adam       as full, under FedAdam, whose step hides the mean that it is of  the sum, and what the model does
    avgm, yogi, adagrad   as adam, under these                                  what the model does
    views      as full, of each record four views, which count as one           what is clipped
    own        as full, with a model, records, a loss and a figure of a user's  what that code does, what leaves
    bf16       as full, computed in bf16                                        whose norms are clipped by
    stopped    as full, ended by its loss after the first of its rounds         what an early end is said to cost
    page       a report, with a hostile picture on its page                     what a reader is shown
    goes-on    two runs, the second of which begins from the first one's model  whether both are charged
    baseline   no run: what policy and ledger say of a run without noise        who lets it in, what bounds it
    lapsing    no run: a ledger whose reservation is past its time             what another run is given
    growing    a run without an audit, whose lots grow to all records           the rate that a round is charged at
    tables     no run: tables in which persons' ids are spelled in many ways    whose record it is
    processes  a round of one silo without an audit, in two processes           what two of them release

A check is a gauge's name, or one of a few that are none: `preflight`, by which silos refuse before anything is trained
or charged, `lower_bound`, by which so many guesses about canaries are right that the claim is refuted,
`page_markup`, by which a picture has brought elements of its own onto the page, `wire`, by which every silo lets no
answer of its own leave, since it holds more than an answer does, `records_of_a_person`, by which more or fewer records
are left of a person than the unit has, `earlier_run`, by which a ledger does not hold the run that a run began from,
`deployed_baseline`, by which a deployed silo lets a run without noise in, `unbounded_release`, by which a figure is
told of what such a run released, `charge_kept`, by which a silo gives back what was charged, `charged_rate`, by which
a round is charged at another rate than its lots were drawn with, and `as_one_process`, by which several processes of a
silo release something else than one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from scenarios.selftest import mutations, own_mutations
from scenarios.selftest.planting import Planted, together

Setting = Literal[
    "full",
    "sampled",
    "dropouts",
    "adam",
    "avgm",
    "yogi",
    "adagrad",
    "views",
    "own",
    "bf16",
    "stopped",
    "page",
    "goes-on",
    "baseline",
    "lapsing",
    "growing",
    "tables",
    "processes",
]

PREFLIGHT: Final = "preflight"
LOWER_BOUND: Final = "lower_bound"
WIRE: Final = "wire"
PAGE_MARKUP: Final = "page_markup"
RECORDS_OF_A_PERSON: Final = "records_of_a_person"
EARLIER_RUN: Final = "earlier_run"
DEPLOYED_BASELINE: Final = "deployed_baseline"
UNBOUNDED_RELEASE: Final = "unbounded_release"
CHARGE_KEPT: Final = "charge_kept"
CHARGED_RATE: Final = "charged_rate"
AS_ONE_PROCESS: Final = "as_one_process"


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        name: What it is called in the table.
        check: Which must catch it.
        setting: In which run.
        plant: Puts it into the code while its block runs.
    """

    name: str
    check: str
    setting: Setting
    plant: Callable[[], Planted]


STRATEGIES: Final[dict[str, Setting]] = {
    "fedavg": "full",
    "fedavgm": "avgm",
    "fedadam": "adam",
    "fedyogi": "yogi",
    "fedadagrad": "adagrad",
}
"""By the name of each strategy that an audit follows, the setting that has it."""


def _unmeasured(plant: Callable[[], Planted]) -> Callable[[], Planted]:
    """Return a fault in a process that leaves its preflight out."""
    return partial(together, mutations.without_preflight, plant)


def _ununited(plant: Callable[[], Planted]) -> Callable[[], Planted]:
    """Return a fault in a silo that does not measure whether its processes sum up as one does."""
    return partial(together, mutations.without_comparing_processes, plant)


def _number(silo: str) -> int:
    """Return the number in a silo's name."""
    return int(silo.removeprefix("s"))


FAULTS: Final = (
    Fault("noise-x0.9", "noise_std", "full", partial(mutations.noise_times, 0.9)),
    Fault("noise-x0.5", LOWER_BOUND, "full", partial(mutations.noise_times, 0.5)),
    Fault("release-noises-less", PREFLIGHT, "full", partial(mutations.release_noises_less, 0.9)),
    Fault("release-noises-less, no preflight", "noise_std", "full",
          _unmeasured(partial(mutations.release_noises_less, 0.9))),
    Fault("noise-once-for-two-layers", PREFLIGHT, "full", mutations.noise_once_for_two_layers),
    Fault("noise-once-a-round", "noise_std", "sampled", mutations.noise_once_a_round),
    Fault("noise-misses-the-canaries", "noise_std", "full", partial(mutations.noise_misses, block=True)),
    Fault("noise-misses-the-model", "noise_everywhere", "full", partial(mutations.noise_misses, block=False)),
    Fault("noise-misses-a-coordinate", "model_noise_std", "full", mutations.noise_misses_a_coordinate),
    Fault("noise-repeats-on-the-model", "model_noise_repeat", "full", mutations.noise_repeats_on_the_model),
    Fault("noise-taken-off-later", "update_explained", "full", mutations.noise_taken_off),
    Fault("noise-missing-in-kept-state", "update_explained", "dropouts", mutations.state_without_noise),
    Fault("state-kept-without-lineage", "update_explained", "dropouts", mutations.state_without_lineage),
    Fault("noise-uniform", "noise_shape", "full", mutations.noise_uniform),
    Fault("seed-reused", "noise_lag1", "full", partial(mutations.noise_seeded, lambda silo, _: _number(silo))),
    Fault("seed-shared", "noise_between_silos", "full", partial(mutations.noise_seeded, lambda _, number: number)),
    Fault("seed-shared-later", "noise_repeat", "full",
          partial(mutations.noise_seeded, lambda silo, number: _number(silo) + number)),
    Fault("clip-x2", PREFLIGHT, "full", mutations.clip_doubled),
    Fault("clip-x2, no preflight", "canary_mean", "full", _unmeasured(mutations.clip_doubled)),
    Fault("no-clip", PREFLIGHT, "full", mutations.clip_missing),
    Fault("no-clip, no preflight", "canary_mean", "full", _unmeasured(mutations.clip_missing)),
    Fault("clip-of-the-sum", PREFLIGHT, "full", mutations.clip_of_the_sum),
    Fault("class-weights-after-the-clip", PREFLIGHT, "sampled", mutations.weights_after_the_clip),
    Fault("loss-couples-records", PREFLIGHT, "full", mutations.loss_couples_records),
    Fault("clip-misses-the-canaries", "canary_mean", "full", partial(mutations.clip_misses, -1)),
    Fault("clip-misses-a-layer", PREFLIGHT, "full", partial(mutations.clip_misses, 0)),
    Fault("factors-of-another-batch", PREFLIGHT, "full", mutations.factors_of_another_batch),
    Fault("tied-weight-counted-twice", PREFLIGHT, "full", mutations.tied_weight_counted_twice),
    Fault("norms-of-another-precision", PREFLIGHT, "bf16", mutations.norms_in_float32),
    Fault("clip-forgets-the-rounding", PREFLIGHT, "full", mutations.rounding_forgotten),
    Fault("ghost-clipping-bypassed", PREFLIGHT, "full", mutations.ghost_clipping),
    Fault("ghost-clipping-bypassed, no preflight", "finite", "full", _unmeasured(mutations.ghost_clipping)),
    Fault("nan-through-clip", PREFLIGHT, "full", mutations.clip_lets_nan_through),
    Fault("nan-through-clip, no preflight", "finite", "full", _unmeasured(mutations.clip_lets_nan_through)),
    Fault("batch-not-padded", PREFLIGHT, "full", mutations.batch_not_padded),
    Fault("grid-left-out", PREFLIGHT, "full", mutations.grid_left_out),
    Fault("grid-left-out, no preflight", "noise_grid", "full", _unmeasured(mutations.grid_left_out)),
    Fault("shuffle-for-poisson", "lot_dispersion", "sampled", mutations.lots_shuffled),
    Fault("rate-x1.5", "lot_rate", "sampled", partial(mutations.lots_at_rate, 1.5)),
    Fault("wrong-denominator", "denominator", "sampled", mutations.denominator_counted),
    Fault("noise-share-dropped", "noise_shares", "dropouts", mutations.noise_share_dropped),
    Fault("update-left-out", "noise_shares", "dropouts", mutations.update_left_out),
    Fault("weights-leave-one-silo-alone", "effective_silos", "dropouts", mutations.weights_lopsided),
    Fault("noise-x0.5, fedadam", "noise_std", "adam", partial(mutations.noise_times, 0.5)),
    Fault("noise-share-dropped, fedadam", "noise_shares", "adam", mutations.noise_share_dropped),
    Fault("update-left-out, fedadam", "noise_shares", "adam", mutations.update_left_out),
    Fault("strategy-forgets-its-state", "model_moves", "adam", mutations.strategy_forgets),
    *(Fault(f"model-moves-otherwise, {name}", "model_moves", setting, mutations.model_moves_otherwise)
      for name, setting in STRATEGIES.items()),
    Fault("views-clipped-apart", PREFLIGHT, "views", mutations.clip_of_each_view),
    Fault("views-clipped-apart, no preflight", "canary_mean", "views", _unmeasured(mutations.clip_of_each_view)),
    Fault("views-counted-as-records", PREFLIGHT, "views", mutations.views_counted_as_records),
    Fault("views-counted-as-records, no preflight", "canary_mean", "views",
          _unmeasured(mutations.views_counted_as_records)),
    Fault("charge-after-release", "charged_before_release", "full", mutations.charged_late),
    Fault("charge-missing", "charged_steps", "full", mutations.trained_twice),
    Fault("charge-never", "charged_before_release", "full", mutations.never_charged),
    Fault("steps-uncharged", "charged_steps", "sampled", mutations.one_step_more),
    Fault("own-loss-couples-records", PREFLIGHT, "own", own_mutations.own_loss_couples),
    Fault("own-model-couples-records", PREFLIGHT, "own", own_mutations.own_model_couples),
    Fault("own-model-keeps-a-figure", PREFLIGHT, "own", own_mutations.own_model_keeps_a_figure),
    Fault("own-model-keeps-a-figure, no preflight", "update_explained", "own",
          partial(together, own_mutations.nothing_put_back, _unmeasured(own_mutations.own_model_keeps_a_figure))),
    Fault("figure-in-a-record", WIRE, "own", own_mutations.figure_in_a_record),
    Fault("figure-in-a-word", WIRE, "own", own_mutations.figure_in_a_word),
    Fault("figure-in-the-update", "noise_shares", "own", own_mutations.figure_in_the_update),
    Fault("picture-with-markup", PAGE_MARKUP, "page", mutations.picture_as_markup),
    Fault("start-forgets-its-cost", EARLIER_RUN, "goes-on", mutations.start_forgets),
    Fault("baseline-at-a-deployed-silo", DEPLOYED_BASELINE, "baseline", mutations.baseline_let_in),
    Fault("baseline-counted-as-nothing", UNBOUNDED_RELEASE, "baseline", mutations.unprotected_left_out),
    Fault("charge-given-back", CHARGE_KEPT, "lapsing", mutations.charged_lapses),
    Fault("grown-lots-charged-as-the-first", CHARGED_RATE, "growing", mutations.charged_as_the_first),
    Fault("noise-once-a-process", PREFLIGHT, "processes", mutations.noise_in_each_process),
    Fault("noise-once-a-process, no preflight", AS_ONE_PROCESS, "processes",
          _ununited(mutations.noise_in_each_process)),
    Fault("lots-drawn-twice", AS_ONE_PROCESS, "processes", _ununited(mutations.lots_drawn_twice)),
    Fault("clip-of-parts", PREFLIGHT, "processes", mutations.clip_of_parts),
    Fault("clip-of-parts, no preflight", AS_ONE_PROCESS, "processes",
          _ununited(mutations.clip_of_parts)),
    Fault("ids-as-spelled", RECORDS_OF_A_PERSON, "tables", mutations.ids_as_spelled),
    Fault("ids-by-column", RECORDS_OF_A_PERSON, "tables", mutations.ids_by_column),
    Fault("epsilon-from-looser-q", "accountants", "sampled",
          partial(together, mutations.without_second_accountant, mutations.rate_halved_in_accounting)),
    Fault("epsilon-of-the-steps-at-a-stop", "accountants", "stopped", mutations.claimed_by_the_steps_taken),
    Fault("accountant-forgets-its-error", "accountants_at_extremes", "full", mutations.accounting_error_forgotten),
)  # fmt: skip
