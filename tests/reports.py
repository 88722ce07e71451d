"""A made-up report that fills every field of the document, for tests of whatever shows one."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta

import numpy as np

from scenarios.report.document import (
    Accounting,
    Approval,
    Attack,
    Audit,
    AuditGuesses,
    BudgetLine,
    BudgetPoint,
    Built,
    Claim,
    CurvePoint,
    DataSet,
    Dropout,
    FileHash,
    Gauge,
    Integrity,
    LedgerRun,
    Limits,
    LowerBound,
    Mechanism,
    Membership,
    Method,
    NotProtected,
    Override,
    PlanEntry,
    Power,
    Report,
    RoundFigures,
    RunFacts,
    Scope,
    Scores,
    SecureAggregation,
    Seen,
    SiloAccounting,
    SiloBudget,
    SiloClaim,
    SiloMechanism,
    Training,
    Trust,
    Unmeasured,
    Withdrawal,
)
from scenarios.runs.parts import Countersigned, LedgerHead

SILOS = ("aurora", "borealis", "cascade", "dune")

START = datetime(2026, 11, 25, 9, 30, 12, 345000, tzinfo=UTC)
EPSILON, DELTA, MU, ROUNDS = 2.9999998755143666, 1e-3, 0.9646968210000992, 40


def digest(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def gdp_delta(epsilon: float, mu: float = MU) -> float:
    def below(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2

    return below(mu / 2 - epsilon / mu) - math.exp(epsilon) * below(-mu / 2 - epsilon / mu)


def report(audit: Audit | None = None) -> Report:
    return Report(
        built=Built(
            at=at(60), fedmodel="0.1.0", python="3.11.9",
            libraries={"dp-accounting": "0.6.0", "opacus": "1.6.0", "scipy": "1.16.3"}, page="0" * 64,
        ),
        run=RunFacts(
            scenario="hospitals", summary="four hospitals, one breast-cancer classifier, epsilon 3",
            run="5f0c2b1e9a7d4c33",
            engine="in-process", device="cpu", parameters=31, silos=SILOS, seed=1, first_charge=at(0),
            last_charge=at(39.2),
            seconds=47.524,
        ),
        claim=claim(), scope=scope(), trust=trust(), mechanism=mechanism(), accounting=accounting(),
        not_protected=NotProtected(statements=(
            "The server’s own held-out records: their exact figures were published after every round.",
            "A person with several records: each record is covered alone, and together they are covered worse.",
            "What the model says about everybody: that a large mass is more often malignant is what it was trained to"
            " say,"
            " whether or not one takes part.",
            "Taking part itself: which silos trained, and when, is seen by the server and by the network.",
            "A poisoned update: under masks nobody can look at one silo’s update, and only its clip bounds it.",
            "In a simulation all silos share one machine, and their keys lie unencrypted in the run’s folder.",
        )),
        audit=audit, training=training(), integrity=integrity(),
        limits=Limits(
            statements=(
                "Whether epsilon 3 is small enough for these patients. That is for a person to judge.",
                "Whether each silo’s table holds the records that it is said to hold.",
                "Whether the machines that the silos ran on were sound.",
            ),
            approvals=(Approval(silo="aurora", entry=2, time=at(-900), subject="policy", by="Dr R. Okafor, privacy"
                                                                                            " officer",
                                digest=digest("policy")),),
            signature_lines=("Privacy officer", "Head of data science", "For the ethics board"),
        ),
    )  # fmt: skip


def claim() -> Claim:
    return Claim(
        sentence="Whoever sees the model, or every update that led to it, learns almost nothing about whether any one"
        " record"
        " was in any one of the four silos’ data: the run is (3.00, 0.001)-differentially private for adding or"
        " removing"
        " one record.",
        meaning="At epsilon 3.00 and delta 0.001, an observer who is wrong about absence in 1% of cases can be right"
        " about"
        " presence in at most 20.2% of cases, whatever else they know.",
        early=None,
        protects=True, unit="record", max_records=1, adjacency="add-or-remove-one", epsilon=EPSILON, delta=DELTA,
        silos=tuple(
            SiloClaim(silo=silo, epsilon=EPSILON, epsilon_of_steps_taken=EPSILON, odometer=None,
                      epsilon_all_runs=8.0 if silo == "aurora" else EPSILON,
                      delta=DELTA, target_epsilon=3.0, mu=MU, mu_floor=1e-9, advantage=0.3702246361411179,
                      steps=ROUNDS, steps_reserved=ROUNDS)
            for silo in SILOS
        ),
        rests_on="aurora, borealis and cascade countersigned their ledgers. There is no countersignature of dune.",
    )  # fmt: skip


def scope() -> Scope:
    def run(this: bool) -> LedgerRun:
        return LedgerRun(
            run="5f0c2b1e9a7d4c33" if this else "0d9e8f7a6b5c4d21", this=this, scenario=digest("hospitals"),
            rounds=ROUNDS if this else 8, steps=ROUNDS if this else 8, reserved_steps=ROUNDS if this else 8,
            mechanism="dp-sgd",
            noise_multiplier=6.560156095339964, sample_rate=1.0, noise_source="os",
            epsilon=EPSILON if this else 1.2345678, epsilon_of_steps_taken=EPSILON if this else 1.2345678,
            admitted="plan", first_charge=at(0 if this else -86400), last_charge=at(39.2 if this else -86300),
        )  # fmt: skip

    return Scope(
        data_sets=(DataSet(name="breast-cancer", source="scikit-learn",
                           kind="569 masses, 30 measurements of each, and whether it was malignant"),),
        budgets=tuple(
            SiloBudget(
                silo=silo, scope="breast-cancer record 1 add-or-remove-one", data="breast-cancer", unit="record",
                max_records=1, adjacency="add-or-remove-one", delta=DELTA, cap=8.0 if silo == "aurora" else 3.0,
                spent=EPSILON + (1.2345678 if silo == "aurora" else 0), protects=True, order=8,
                bound=8.0 if silo == "aurora" else EPSILON,
                taken_whole=silo != "aurora", runs=(run(False), run(True)) if silo == "aurora" else (run(True),),
            )
            for silo in SILOS
        ),
        prior_runs=1, protects=True, largest_bound=8.0,
    )  # fmt: skip


def trust() -> Trust:
    return Trust(
        model="local-to-the-silo",
        noise_added_by="Each silo adds all of its own noise, from its operating system’s generator, before anything"
        " leaves it."
        " No other silo’s noise and no server is relied on.",
        parties=(
            Seen(who="whoever gets the model", sees="the model after every round", holds="epsilon and delta, by the"
                                                                                         " ledgers"),
            Seen(who="the server", sees="sums of at least four updates, who trained and when, error codes",
                 holds="no single update, while no more than one silo works with it; and epsilon and delta for the"
                 " sums"),
            Seen(who="one silo", sees="the global model", holds="the same epsilon and delta for every other silo’s"
                                                                " records"),
        ),
        secure_aggregation=SecureAggregation(mode="on", threshold=3, least_silos_in_a_sum=4,
                                             least_effective_silos_in_a_sum=3.6, colluding_tolerated=1,
                                             suite="classic", consistency="commit", bits=32, bound=4.0),
        collusion="One silo may work with the server. With two, the update of a single other silo could be opened;"
        " its own"
        " noise is what holds then.",
        access="Records stayed in each silo’s process. In this simulation all silos shared one machine.",
    )  # fmt: skip


def mechanism() -> Mechanism:
    return Mechanism(
        description="DP-SGD: every record’s gradient is clipped, the clipped gradients of a lot are added, and"
        " Gaussian noise"
        " is added to the sum.",
        sensitivity="One record moves a sum by at most the clip, 1.0. A gradient that is no number counts as zero.",
        sampling="Every record was in every lot, so that sampling adds no privacy and none is claimed.",
        side_channels="Noise is drawn on a grid, with the sum, so that floating point gives no bits away. Timing is not"
        " hidden: how long a round took can tell how many records a silo has.",
        silos=tuple(
            SiloMechanism(
                silo=silo, mechanism="dp-sgd", noise_multiplier_planned=6.560156095339964,
                noise_multiplier=6.560156095339964,
                max_grad_norm_planned=1.0, max_grad_norm=1.0, sample_rate_planned=1.0, sample_rate_realised=1.0,
                steps_planned=ROUNDS, steps_charged=ROUNDS, rounds_charged=ROUNDS, denominator_planned=60,
                denominator=60,
                sampler="poisson", noise_source="os", weight=1.0,
            )
            for silo in SILOS
        ),
        rounds_planned=ROUNDS, rounds_completed=39, rounds_failed=1, ended_early=None,
        dropouts=(Dropout(silo="dune", code="timed-out", rounds=2),),
        withdrawn=(Withdrawal(silo="dune", code="budget-exceeded", round=38),),
    )  # fmt: skip


def accounting() -> Accounting:
    return Accounting(
        composition="Every noised sum is one use of the Gaussian mechanism. Uses within a silo compose; silos hold"
        " different"
        " records, so the run’s epsilon is the largest silo’s.",
        methods=(
            Method(name="pld", means="Privacy loss distributions, composed numerically: an upper bound.",
                   by="dp-accounting"),
            Method(name="prv", means="Privacy random variables, another library’s upper bound.", by="opacus"),
            Method(name="rdp", means="Rényi divergences: an upper bound, always looser.", by="fedmodel"),
        ),
        silos=tuple(
            SiloAccounting(
                silo=silo, delta=DELTA, pld=EPSILON, prv=None if silo == "dune" else 3.0087,
                prv_reason="it did not converge" if silo == "dune" else None, rdp=3.3281, rdp_order=7,
                curve=tuple(CurvePoint(epsilon=one / 10, delta=gdp_delta(one / 10)) for one in range(61)),
            )
            for silo in SILOS
        ),
    )  # fmt: skip


def training() -> Training:
    def points(silo: str) -> tuple[BudgetPoint, ...]:
        before = 1.2345678 if silo == "aurora" else 0.0
        return tuple(
            BudgetPoint(time=at(0.98 * step), epsilon=before + EPSILON * math.sqrt((step + 1) / ROUNDS),
                        cap=8.0 if silo == "aurora" else 3.0)
            for step in range(ROUNDS)
        )  # fmt: skip

    return Training(
        figures={"accuracy": 0.951048951048951, "recall": 0.9245283018867925, "precision": 0.9423076923076923,
                 "f1": 0.9333333333333333, "auroc": 0.9947589098532496, "loss": 0.09461226163210569},
        rounds=tuple(
            RoundFigures(
                round=one, failed=one == 17, cohort=4, summed=0 if one == 17 else 4,
                seconds=0.98,
                figures={} if one == 17 else {"loss": 0.09 + 0.6 * math.exp(-one / 9) + 0.01 * math.sin(7 * one),
                                              "accuracy": 0.95 - 0.4 * math.exp(-one / 5) + 0.006 * math.sin(5 * one)},
            )
            for one in range(1, ROUNDS + 1)
        ),
        budgets=tuple(BudgetLine(silo=silo, scope="breast-cancer record 1 add-or-remove-one", delta=DELTA,
                                 points=points(silo))
                      for silo in SILOS),
    )  # fmt: skip


def integrity() -> Integrity:
    head = (
        "dune.example/ledger\n44\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— dune.example/ledger Az3grlgtzPICa5OS8npV\n"
    )
    return Integrity(
        signer=digest("server"),
        ledgers=tuple(
            LedgerHead(silo=silo, key=digest(silo), key_from="roster" if silo != "dune" else "ledger", entries=44,
                       root=digest(silo + "root"), head=head.replace("dune", silo), head_entries=44,
                       verifier_key=f"{silo}.example/ledger+cf119915+AbfK5adZJxsI323FwGD2AJJ9F4i89cfDuLdGJBIYntuO",
                       countersigned=None if silo == "dune" else Countersigned(
                           entry=44, model=digest("model.safetensors"), code=digest("code")))
            for silo in SILOS
        ),
        not_countersigned=("dune",),
        code_hash=digest("code"), scenario_hash=digest("scenario"),
        dependencies=tuple(sorted(f"{name}=={major}.4.1" for major, name in enumerate(
            ["alembic", "blake3", "cryptography", "dp-accounting", "flwr", "jinja2", "matplotlib", "numpy",
             "nvidia-cublas-cu12",
             "opacus", "pandas", "pydantic", "pyrage", "ray", "safetensors", "scikit-learn", "scipy", "torch",
             "typer"] * 5))),
        dependencies_hash=digest("dependencies"),
        files=tuple(FileHash(name=name, sha256=digest(name)) for name in
                    ("metrics.jsonl", "model.safetensors", "scenario.toml", "summary.json",
                     *(f"ledgers/{one}.sqlite" for one in SILOS))),
        overrides=(Override(silo="aurora", scope="breast-cancer record 1 add-or-remove-one", entry=3, time=at(-600),
                            epsilon=8.0,
                            by="Dr R. Okafor", reason="second study approved by the ethics board, ref. 2026/114"),),
    )  # fmt: skip


def audit(verdict: str = "not-refuted") -> Audit:
    random = np.random.default_rng(6)
    included, excluded = random.normal(MU, 1, 506), random.normal(0, 1, 494)
    refuted, inconclusive = verdict == "refuted", verdict == "inconclusive"
    power = 0.4321 if inconclusive else 0.99375

    def gauge(name: str, silo: str | None, expected: float, width: float, why: str) -> Gauge:
        failed = refuted and name == "noise_std" and silo == "dune"
        measured = expected * (0.5 if failed else 1) + width * (0 if failed else 0.31)
        return Gauge(name=name, silo=silo, measured=measured, expected=expected, low=expected - width,
                     high=expected + width,
                     passed=not failed, explanation=f"{why} measured {measured:.4g}, expected"
                                                    f" {expected:.4g}.")  # fmt: skip

    gauges = [
        gauge(name, silo, expected, width, why)
        for name, expected, width, why in (
            ("noise_std", 6.5602, 0.32, "The noise’s standard deviation over the clip:"),
            ("canary_mean", 1.0, 0.43, "What one included canary added to a sum, over the clip:"),
            ("noise_lag1", 0.0, 0.05, "Correlation of the noise between one step and the next:"),
            ("lot_dispersion", 0.0, 0.0, "Variance of the lots’ sizes:"),
            ("denominator", 60.0, 0.0, "What sums were divided by:"),
            ("poison", 0.0, 33.1, "What a record without a number added:"),
            ("charged_steps", 40.0, 0.0, "Steps that the ledger charged:"),
        )
        for silo in SILOS
    ]
    return Audit(
        plan={"kind": "probe", "guesses": 700, "significance": 0.05, "needed": 545, "scenario": digest("scenario"),
              "statistic": "f-DP, one run, of the largest and smallest scores", "least_power": 0.8,
              "silos": [{"silo": one, "canaries": 250, "noise_multiplier": 6.56, "steps": 40} for one in SILOS]},
        plan_hash=digest("plan"),
        entered=tuple(PlanEntry(silo=one, plan_entry=3, first_charge_entry=4, result_entry=44) for one in SILOS),
        claimed_epsilon=EPSILON, delta=DELTA, claimed_mu=MU,
        lower_bounds={
            "steinke": LowerBound(epsilon=1.1399, confidence=0.95, assumption=None),
            "fdp": LowerBound(epsilon=2.4189 if not refuted else 5.812, confidence=0.95, assumption=None, mu=0.8),
            "clopper_pearson": LowerBound(epsilon=0.9312, confidence=0.95, assumption="canaries do not influence each"
            " other"),
            "gaussian": LowerBound(epsilon=2.6418, confidence=0.95, assumption="under a Gaussian score model", mu=0.86),
        },
        power=Power(against="half the noise", power=power, least=0.8, runs=400),
        gauges=(*gauges, gauge("noise_between_silos", None, 0.0, 0.04,
                               "Largest correlation between two silos’ noise:")),
        membership=Membership(
            loss_threshold=Attack(auc=0.5126, tpr_at_1pct_fpr=0.0142, epsilon_estimate=0.21),
            rmia=Attack(auc=0.5203, tpr_at_1pct_fpr=0.0173, epsilon_estimate=0.34),
            note="Guesses about the final model’s training records, by what it says of them.",
        ),
        scores=Scores(included=tuple(included.tolist()), excluded=tuple(excluded.tolist())),
        guesses=AuditGuesses(canaries=1000, made=700, correct=648 if refuted else 517, needed=545),
        verdict=verdict,  # type: ignore[arg-type]
        reasons={
            "not-refuted": ("517 of 700 guesses were right, and 545 would have refuted the claim.",
                            "all checks passed"),
            "refuted": ("648 of 700 guesses were right, and 545 refute the claim.", "noise_std failed at dune"),
            "inconclusive": ("the power is under 0.8",),
        }[verdict],
    )  # fmt: skip


def strayed() -> Audit:
    """An audit of a run whose server moved the model otherwise than its declared strategy does."""
    found = audit("inconclusive")
    moved = Gauge(name="model_moves", silo=None, measured=0.01, expected=0.0, low=0.0, high=0.001, passed=False,
                  explanation="of 3 models the one of round 2 is farthest from what the strategy made of the means"
                              " before it.")  # fmt: skip
    return found.model_copy(
        update={
            "gauges": (*found.gauges, moved),
            "power": found.power.model_copy(update={"power": 0.95}),
            "reasons": (f"the server's step is not that of the declared strategy: {moved.explanation}",),
        }
    )


def unmeasured(name: str, silo: str | None) -> Unmeasured:
    return Unmeasured(name=name, silo=silo)


def data_set(name: str) -> DataSet:
    return DataSet(name=name, source=name, kind=name)
