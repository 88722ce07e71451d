"""What a notebook shows of a scenario, of a run and of an audit: tables and a line or two, in HTML that runs nothing.

Colours are the notebook's own, light or dark. Every text that comes from elsewhere is escaped, and figures of privacy
are rounded outwards (`fedmodel.privacy.rounding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT, IF_HIDDEN
from fedmodel.privacy.rounding import down, noise, small, up
from fedmodel.system.counts import counted
from fedmodel.system.inert import inert_lines
from scenarios.face.figures import largest

if TYPE_CHECKING:
    from pathlib import Path

    from fedmodel.config import Scenario

_MOST_SILOS: Final = 8  # of a longer list, those that spent most
_CELL: Final = "padding:2px 12px 2px 0;text-align:left"
_FAINT: Final = "opacity:.7"
_WARNING: Final = "border-left:4px solid #c62828;padding-left:8px;margin:4px 0"
_WIDTH, _HEIGHT = 220, 48  # of a curve, in pixels


class Told(NamedTuple):
    """A run, as it is shown.

    Attributes:
        folder: Where it lies.
        scenario: What was done.
        summary: Its figures, of a run that was cut short those that there are.
        ended: Whether it ran to its end.
        lines: Of its `metrics.jsonl`.
    """

    folder: Path
    scenario: Scenario
    summary: Mapping[str, Any]
    ended: bool
    lines: Sequence[Mapping[str, Any]]


def scenario_html(scenario: Scenario, text: str, hash_: str) -> str:
    """Return what a scenario asks for, and its text to unfold."""
    privacy, training = scenario.privacy, scenario.training
    silos = scenario.federation.silos
    steps = [plan.steps_per_round for plan in scenario.plans(silos[0])]
    rates = [f"{privacy.sample_rate * phase.times:g} from round {phase.first} on" for phase in scenario.phases[1:]]
    rows = {
        "silos": f"{len(silos)}: {_listed(silos)}",
        "rounds": f"{scenario.rounds}, each of {_span(steps)} {'step' if max(steps) == 1 else 'steps'}",
        "data": scenario.data.described,
        "model": _model_of(scenario),
        "training": f"{training.loss}, {training.optimizer} at {training.learning_rate:g}",
        "privacy": f"{_asked(scenario)} per {privacy.unit} at delta {small(privacy.delta)},"
        f" clip {privacy.max_grad_norm:g},"
        f" sample rate {', '.join((f'{privacy.sample_rate:g}', *rates))}",
        "updates": _updates(scenario.encryption.secure_aggregation),
        "hash": hash_[:16],
    }
    return _block(
        _title(scenario.name, scenario.summary),
        _warning(_no_claim(privacy.noise_name)),
        _pairs(rows),
        f'<details><summary style="cursor:pointer">its text</summary><pre>{_text(text)}</pre></details>',
    )


def scenario_in_a_line(scenario: Scenario) -> str:
    """Return a scenario in a line, for a terminal."""
    privacy, silos = scenario.privacy, len(scenario.federation.silos)
    warning = _no_claim(privacy.noise_name)
    return (
        f"<Scenario {scenario.name}: {scenario.data.described}; {silos} {'silo' if silos == 1 else 'silos'},"
        f" {scenario.rounds} {'round' if scenario.rounds == 1 else 'rounds'}; {_asked(scenario)} per {privacy.unit}"
        f" at delta {small(privacy.delta)}{f'. {warning}' if warning else ''}>"
    )


def _asked(scenario: Scenario) -> str:
    """Say by which figure a scenario asks for privacy."""
    privacy = scenario.privacy
    if privacy.epsilon is not None:
        return f"epsilon {up(privacy.epsilon)}"
    return f"noise multiplier {noise(privacy.noise_multiplier or 0.0)}"


def _span(numbers: Sequence[int]) -> str:
    """Return one number, or the least and the largest of several.

    >>> _span([2, 2]), _span([4, 1])
    ('2', '1 to 4')
    """
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def run_html(run: Told) -> str:
    """Return a run's figures, how its loss fell, and what it cost each silo."""
    rows, figures = run.summary["privacy"], run.summary["metrics"]
    return _block(
        _title(run.scenario.name, _about(run)),
        _warning(_cut_short(run)),
        _warning(_no_claim(run.scenario.privacy.noise_name)),
        _warning(_useless(run)),
        _table(list(figures), [[f"{value:.4f}" for value in figures.values()]]) if figures else "",
        _curve([line.get("loss") for line in run.lines], "loss on the server's held-out records, by round"),
        f"<div>{_text(cost_in_words(run))}</div>",
        _spent(rows),
        f'<div style="{_FAINT}">{_text(str(run.folder))}</div>',
    )


def run_in_a_line(run: Told) -> str:
    """Return a run in a line, for a terminal."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in run.summary["metrics"].items())
    return f"<Run {run.scenario.name}: {_about(run)}; {figures or 'no whole round'}; {cost_in_words(run)} {run.folder}>"


def cost_in_words(run: Told) -> str:
    """Say what a run cost each silo at most, per what, and who says so."""
    privacy, rows = run.scenario.privacy, run.summary["privacy"]
    delta = max(row["delta"] for row in rows)
    if privacy.noise_name == EXPERIMENT:
        would = up(largest(row.get(EPSILON_IF_HIDDEN, row["epsilon"]) for row in rows))
        return f"Nothing is claimed of this run: epsilon would be {would} at delta {small(delta)} {IF_HIDDEN}."
    if privacy.noise_name != "os":
        return "Nothing is claimed of this run."
    return (
        f"Epsilon is at most {up(largest(row['epsilon'] for row in rows))} at delta {small(delta)}, per {privacy.unit},"
        " at each silo: of the whole plan, by the silos' own ledgers."
    )


def audit_html(found: Mapping[str, Any]) -> str:
    """Return what an audit found: the verdict with its reasons, and the lower bounds."""
    bounds = [
        [name.replace("_", " "), down(one["epsilon"]), f"{one['confidence']:.0%}", one["assumption"]]
        for name, one in found["lower_bounds"].items()
    ]
    failed = [gauge for gauge in found["gauges"] if not gauge["passed"]]
    held = f"{len(found['gauges']) - len(failed)} of {len(found['gauges'])} gauges held."
    claimed = f"epsilon {up(found['claimed_epsilon'])} at delta {small(found['delta'])}"
    return _block(
        _title(found["verdict"], f"of the claim of {claimed}; {'; '.join(found['reasons'])}"),
        _table(["estimator", "epsilon at least", "confidence", "assumption"], bounds),
        f"<div>{_text(held)}</div>",
        *(_warning(f"{one['name']}: {one['explanation']}") for one in failed),
    )


def _about(run: Told) -> str:
    """Say how far a run came."""
    done, summary = f"{run.summary['rounds_completed']} of {counted(run.scenario.rounds, 'round')}", run.summary
    silos = counted(len(run.scenario.federation.silos), "silo")
    if not run.ended:
        return f"{done}, {silos}"
    seconds = f"{summary['timing']['seconds_total']:.1f} s on {summary['device']}"
    return f"{done}, {silos}, {summary['parameters']:,} parameters, {seconds}"


def _cut_short(run: Told) -> str | None:
    if run.ended:
        return None
    return (
        "This run was cut short. What stands here was spent. The call that began it goes on where it stopped, with"
        f" out={str(run.folder)!r}."
    )


def _no_claim(noise_name: str) -> str | None:
    """Say that nothing is claimed, where noise was seeded or left out."""
    match noise_name:
        case "os":
            return None
        case "seeded-unsafe":
            return "Noise is seeded: whoever knows the seed can remove it. It protects nobody."
        case "experiment":
            return "Noise is an experiment's, from a seed: whoever knows it can remove it. It protects nobody."
        case _:
            return "No noise is added: this protects nobody."


def _useless(run: Told) -> str | None:
    from scenarios.runs.usefulness import told_of

    return told_of(run.folder) if run.ended else None


def _spent(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each silo; of many those that spent most, and how many others there are."""
    most = sorted(rows, key=lambda row: -largest([row.get(EPSILON_IF_HIDDEN, row["epsilon"])]))[:_MOST_SILOS]
    shown = rows if len(rows) <= _MOST_SILOS else most
    cells = [
        [
            row["silo"],
            up(row["epsilon"]) if EPSILON_IF_HIDDEN not in row else f"{up(row[EPSILON_IF_HIDDEN])} {IF_HIDDEN}",
            small(row["delta"]),
            "-" if row["noise_multiplier"] is None else noise(row["noise_multiplier"]),
            f"{row['steps']} of {row['steps_reserved']}",
        ]
        for row in shown
    ]
    more = len(rows) - len(shown)
    others = f'<div style="{_FAINT}">and {more} more: see run.privacy</div>' if more else ""
    return _table(["silo", "epsilon", "delta", "noise multiplier", "steps"], cells) + others


def _model_of(scenario: Scenario) -> str:
    use = getattr(scenario.model, "use", None)
    kind = str(getattr(scenario.model, "kind", "own"))
    return kind if use is None else f"{use}, of your own"


def _updates(mode: str) -> str:
    return {
        "on": "the server sees sums of masked updates alone",
        "simulated": "the server sees each update: secure aggregation is simulated, without its masks",
    }.get(mode, "the server sees each silo's update")


def _curve(values: Iterable[float | None], title: str) -> str:
    """Return a curve over rounds as SVG, with its first and last value; nothing where there are not two."""
    found = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(found) < 2:
        return ""
    low, high = min(value for _, value in found), max(value for _, value in found)
    last = found[-1][0] or 1
    points = " ".join(
        f"{_WIDTH * place / last:.1f},{_HEIGHT - 4 - (_HEIGHT - 8) * (value - low) / ((high - low) or 1.0):.1f}"
        for place, value in found
    )
    return (
        f'<div><svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{_text(title)}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
        f' <span style="{_FAINT}">{_text(title)}: {found[0][1]:.4f} to {found[-1][1]:.4f}</span></div>'
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _MOST_SILOS else f"{', '.join(names[:3])} to {names[-1]}"


def _title(name: str, about: str) -> str:
    return f'<div><b>{_text(name)}</b> <span style="{_FAINT}">{_text(about)}</span></div>'


def _warning(text: str | None) -> str:
    return "" if text is None else f'<div style="{_WARNING}">{_text(text)}</div>'


def _pairs(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><th style="{_CELL}">{_text(name)}</th><td style="{_CELL}">{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL}">{_text(one)}</th>' for one in headings)
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{_text(one)}</td>' for one in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _block(*parts: str) -> str:
    return f'<div class="fedmodel">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return escape(inert_lines(text))
