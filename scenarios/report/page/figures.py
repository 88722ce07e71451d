"""Which plots a report has, and what is said with each: a caption that tells how to read it, the same again in words.

Everything drawn is a figure of the document. A plot for which it has none is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmodel.privacy.rounding import down, small, up
from fedmodel.system.inert import inert
from scenarios.report.document import Audit, BudgetLine, Report
from scenarios.report.page import plots
from scenarios.runs import words

_LEARNED = ("loss", "accuracy", "auroc", "recall")  # at most two of them are drawn, the first that were measured


@dataclass(frozen=True)
class Figure:
    """A plot and its caption.

    Attributes:
        svg: The plot.
        title: What it shows.
        caption: How to read it.
    """

    svg: str
    title: str
    caption: str


def figures(report: Report) -> dict[str, Figure]:
    """Return a report's plots by name, which are the ids of their SVG elements too."""
    found = {
        "plot-budget": _budget(report),
        "plot-delta": _delta(report),
        "plot-learning": _learning(report),
        **({} if report.audit is None else _of_audit(report.audit)),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _budget(report: Report) -> Figure | None:
    """Draw the budgets over time."""
    lines = [line for line in report.training.budgets if any(point.epsilon is not None for point in line.points)]
    if not lines:
        return None
    names = [line.silo for line in lines]
    labels = [
        inert(name if names.count(name) == 1 else f"{name}, {line.scope}")
        for name, line in zip(names, lines, strict=True)
    ]
    spent = [
        plots.Spent(label, [(words.when_of(point.time), point.epsilon, point.cap) for point in line.points])
        for label, line in zip(labels, lines, strict=True)
    ]
    title = "Budget spent over time, by silo"
    left_out = len(lines) - plots.MOST_PANELS
    stops = any(line.points[-1].epsilon is None for line in lines)
    caption = (
        "How to read it: a panel a silo. The filled steps are epsilon of the steps taken so far, by this run and all"
        " before it, had every plan and its length been fixed in advance; the dashed line is the cap that the silo set"
        " itself, which holds however they were chosen. A step that would pass it is refused."
        + (" Where steps stop short of it, noise was seeded or no bound is computed from there on." if stops else "")
        + (f" The {plots.MOST_PANELS} silos that spent most are drawn, {left_out} are not." if left_out > 0 else "")
    )
    said = [_budget_in_words(label, line) for label, line in zip(labels, lines, strict=True)]
    return Figure(plots.budget_over_time("plot-budget", spent, title, " ".join(said)), title, caption)


def _budget_in_words(label: str, line: BudgetLine) -> str:
    """Say what one silo spent over time."""
    last = line.points[-1]
    return (
        f"{label}: epsilon {up(last.epsilon)} of {up(last.cap)} spent at {words.moment(last.time)},"
        f" from {up(line.points[0].epsilon)} at {words.moment(line.points[0].time)}, had every length been fixed."
    )


def _delta(report: Report) -> Figure | None:
    """Draw the privacy curve of the silo with the largest epsilon."""
    if not report.claim.protects:
        return None
    bounded = [(one.pld, one) for one in report.accounting.silos if one.pld is not None and one.curve]
    if not bounded:
        return None
    epsilon, silo = max(bounded, key=lambda pair: pair[0])
    curve = [(point.epsilon, point.delta) for point in silo.curve]
    title = f"The whole privacy curve of {silo.silo}"
    caption = (
        "How to read it: epsilon and delta are two ends of one promise, and every point on the curve holds at once."
        f" Further right, probabilities may differ by a larger factor, and by less besides. {silo.silo} is the silo"
        " with the largest epsilon; the dot is the point that this report quotes."
    )
    some = [curve[place] for place in sorted({0, len(curve) // 2, len(curve) - 1})]
    said = "; ".join(f"epsilon {up(at, 2)}, delta {small(delta)}" for at, delta in some)
    description = f"Points on the curve: {said}. The claim: epsilon {up(epsilon)}, delta {small(silo.delta)}."
    return Figure(plots.delta_curve("plot-delta", curve, (epsilon, silo.delta), title, description), title, caption)


def _learning(report: Report) -> Figure | None:
    """Draw what the server measured over the rounds."""
    rounds = report.training.rounds
    measured = [key for key in _LEARNED if any(key in one.figures for one in rounds)][:2]
    if not measured:
        return None
    curves = {words.name(key).lower(): [one.figures.get(key) for one in rounds] for key in measured}
    title = f"{words.listed(list(curves)).capitalize()} over the rounds"
    rough = " Noise makes the lines rough; what counts is where they end."
    if report.mechanism.is_baseline:
        title, rough = f"{title}, WITHOUT noise: protects nobody", ""
    failed = sum(one.failed for one in rounds)
    caption = f"How to read it: one point a round, measured by the server on its own held-out records.{rough}" + (
        f" A gap is a round that failed: {words.counted(failed, 'round')}." if failed else ""
    )
    said = []
    for key, values in curves.items():
        known = [(one.round, value) for one, value in zip(rounds, values, strict=True) if value is not None]
        said.append(
            f"{key} went from {words.number(known[0][1])} in round {known[0][0]}"
            f" to {words.number(known[-1][1])} in round {known[-1][0]}"
        )
    description = f"{'; '.join(said)}.".capitalize()
    svg = plots.learning("plot-learning", [one.round for one in rounds], curves, title, description)
    return Figure(svg, title, caption)


def _of_audit(audit: Audit) -> dict[str, Figure | None]:
    """Return the plots of an audit."""
    return {"plot-bounds": _bounds(audit), "plot-scores": _scores(audit), "plot-roc": _roc(audit)}


def _bounds(audit: Audit) -> Figure | None:
    """Draw what each estimator left open."""
    if not audit.lower_bounds:
        return None
    claimed = audit.claimed_epsilon
    title = "Between what was shown and what is claimed"
    caption = (
        "How to read it: a bar begins where that estimator’s knowledge ends, and reaches to the claim. The true epsilon"
        " may lie anywhere in the bar. A long bar means that the attack was weak, and not that privacy is better than"
        " claimed. A bar beyond the dashed line speaks against the claim, as far as its confidence and assumption go."
    )
    bars = [(words.short(key), one.epsilon) for key, one in audit.lower_bounds.items()]
    said = "; ".join(f"{label}: epsilon is not under {down(low, 2)}" for label, low in bars)
    description = f"{said}. The claim: epsilon is not over {up(claimed, 2)}."
    return Figure(plots.bounds("plot-bounds", bars, claimed, title, description), title, caption)


def _scores(audit: Audit) -> Figure | None:
    """Draw the two histograms of scores."""
    included, excluded = audit.scores.included, audit.scores.excluded
    if not included or not excluded:
        return None
    title = "What the attack saw of its canaries"
    caption = (
        "How to read it: the attack gives every canary a score, high where it believes that the canary was trained on."
        " The more the solid and the dashed outline overlap, the less can be told apart. Some distance is what the"
        " claimed epsilon allows."
    )
    description = (
        f"{words.counted(len(included), 'included canary').replace('canarys', 'canaries')} scored"
        f" {words.number(float(np.mean(included)))} on average, with a standard deviation of"
        f" {words.number(float(np.std(included)))}; {len(excluded):,} that were left out scored"
        f" {words.number(float(np.mean(excluded)))}, with {words.number(float(np.std(excluded)))}."
    )
    return Figure(plots.score_histograms("plot-scores", included, excluded, title, description), title, caption)


def _roc(audit: Audit) -> Figure | None:
    """Draw the attack's ROC and what the claim allows."""
    included, excluded, mu = audit.scores.included, audit.scores.excluded, audit.claimed_mu
    if not included or not excluded:
        return None
    independent = audit.plan.get("kind") == "probe"
    title = "How often the attack was right and wrong"
    caption = (
        "How to read it: every threshold of the attack is a point. Further up, more canaries found; further left, fewer"
        " false alarms. The dotted diagonal is blind guessing."
    )
    if mu is not None:
        caption += " The dashed curve is the most that the claimed privacy allows any attack, whatever it does."
        caption += " Chance alone may carry the solid line over it" + (
            ", in 95% of correct runs no further than the shaded band." if independent else "."
        )
    caption += " The verdict rests on the test that was fixed before the run, not on this picture."
    false, true = plots.roc_points(included, excluded)
    rates = [0.01, 0.1, 0.5]
    found = [float(true[false <= rate].max()) for rate in rates]
    allowed = plots.gdp_allows(np.array(rates), mu).tolist() if mu else [None] * len(rates)
    said = [
        f"with at most {rate:.0%} false alarms it found {share:.0%} of the included canaries"
        + ("" if most is None else f", where the claim allows {most:.0%} in the long run")
        for rate, share, most in zip(rates, found, allowed, strict=True)
    ]
    description = f"The attack: {'; '.join(said)}."
    return Figure(plots.roc("plot-roc", included, excluded, mu, independent, title, description), title, caption)
