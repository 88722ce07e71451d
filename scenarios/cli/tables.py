"""A run's outcome, printed for a person: the same tables for a simulation, a rehearsal and a deployment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from fedmodel.privacy.events import EPSILON_IF_HIDDEN, IF_HIDDEN
from fedmodel.privacy.rounding import noise, small, up
from fedmodel.system.counts import counted
from fedmodel.system.inert import inert
from scenarios.cli.loading import loading
from scenarios.cli.printing import answer, err, out

_MOST_ROWS: Final = 20  # that a person reads one after the other
_EXTREMES: Final = 5  # rows at each end of more


def _seen_by_server(encryption: dict[str, Any], noised: str) -> str:
    """Say in a sentence what the server could see of updates."""
    match encryption["secure_aggregation"]:
        case "on":
            least, threshold = encryption["least_silos_in_a_sum"], encryption["threshold"]
            lies = " and it shows all silos one list" if encryption["consistency"] == "quorum" else ""
            return (
                f"The server saw sums of at least {least} silos' updates and no single one, as long as no more than"
                f" {encryption['colluding_tolerated']} of the silos work with it{lies} (threshold {threshold},"
                f" {encryption['suite']} keys, {encryption['bits']}-bit words)."
            )
        case "simulated":
            return f"The server saw each silo's {noised}: secure aggregation was simulated, without its masks."
        case _:
            return f"The server saw each silo's {noised}: updates are not aggregated under encryption."


def _began_from(start: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Say what a run began from, and whose cost the figures are of."""
    if start["trained_on"] == "public":
        return (
            f"It began from a file (SHA-256 {start['sha256'][:16]}...) that holds no private record: its author's word."
        )
    if any(row["source"] == "reported" for row in rows):
        return (
            "It began from a run's model: figures here are of this run alone, as silos reported them; each silo's own"
            " ledger holds both, and its report claims both."
        )
    return f"It began from the model of run {start.get('run')}: epsilon is of both runs, where a silo was in both."


def _besides(name: str, found: Mapping[str, Any]) -> str:
    """Say what a job besides training came to."""
    if found.get("failed"):
        return f"{name}: its round failed closed, and it is not done again."
    told = [
        ", ".join(f"{one} {number}" for one, number in said.items()) if isinstance(said, dict) else f"{key} {said}"
        for key, said in found.items()
        if key not in ("silos", "noise_std")
    ]
    return (
        f"{name}: {'; '.join(told)}, of {counted(found['silos'], 'silo')} together, with noise of a standard deviation"
        f" of {found['noise_std']:.1f}."
    )


def _figures(metrics: Mapping[str, float], width: int) -> Table:
    """Return a run's figures; names go on in a second line where a row of them is wider than the terminal."""
    from scenarios.runs import words

    table = Table(title="On the server's held-out records", title_justify="left")
    has_room = sum(len(name) + 3 for name in metrics) < width
    for name in metrics:
        table.add_column(name if has_room else name.replace("-", "-\n"), justify="right", overflow="fold")
    table.add_row(*(words.metric(value) for value in metrics.values()))
    return table


def _spent(rows: list[dict[str, Any]], *, every: bool = False) -> Table:
    """Return what each silo spent: a row for each, and for each part where it reserved several together.

    Of many silos those with equal figures are one row, the largest epsilon first; of many such rows, the extremes.

    Args:
        rows: A row a silo.
        every: Whether each silo gets a row, however many there are.
    """
    told = [(row["silo"], row) for row in rows] if every or len(rows) <= _MOST_ROWS else _summed_up(rows)
    unit = rows[0]["unit"] + (
        "" if rows[0]["unit"] == "record" else f" of at most {counted(rows[0]['max_records'], 'record')}"
    )
    table = Table(title=f"Spent by each silo, per {unit}", title_justify="left")
    for heading in ("silo", "epsilon", "delta", "noise", "sample rate", "steps", "of"):
        # A silo is known by its name: it is folded, and never cut.
        table.add_column(heading, justify="left" if heading == "silo" else "right", overflow="fold")
    for silo, row in told:
        if row is None:
            table.add_row(silo, *6 * ["..."])
            continue
        parts = row.get("parts", [])
        epsilon = _epsilon_of(row)
        if parts:  # whose figures stand below: what they cost together is no one's
            table.add_row(silo, f"{epsilon}, composed", small(row["delta"]), *4 * ["by part"])
            for number, part in enumerate(parts, start=1):
                table.add_row(f"  part {number}", "", "", *_figures_of(part))
        else:
            table.add_row(silo, epsilon, small(row["delta"]), *_figures_of(row))
    return table


def _epsilon_of(row: Mapping[str, Any]) -> str:
    """Return a row's epsilon, or what stands in its place and says so."""
    if _is_bare(row):
        return "none: no noise"
    return up(row["epsilon"]) if EPSILON_IF_HIDDEN not in row else f"{up(row[EPSILON_IF_HIDDEN])} {IF_HIDDEN}"


def _summed_up(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any] | None]]:
    """Return rows of equal figures as one, each with whose it is, those of the largest epsilon first.

    Of more rows than are shown, those at both ends, and how many silos lie between.
    """
    alike: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = json.dumps({name: value for name, value in row.items() if name not in ("silo", "budget")}, sort_keys=True)
        alike.setdefault(key, []).append(row)
    groups = sorted(alike.values(), key=lambda group: -_bound(group[0]))
    found: list[tuple[str, dict[str, Any] | None]] = [(_whose(group), group[0]) for group in groups]
    if len(groups) <= _MOST_ROWS:
        return found
    between = sum(map(len, groups[_EXTREMES:-_EXTREMES]))
    return [*found[:_EXTREMES], (f"{between} silos between", None), *found[-_EXTREMES:]]


def _whose(group: Sequence[dict[str, Any]]) -> str:
    """Say whose row of equal figures it is."""
    first, others = str(group[0]["silo"]), len(group) - 1
    return first + (f" and {others} other{'s' if others > 1 else ''}" if others else "")


def _bound(row: Mapping[str, Any]) -> float:
    """Return a row's epsilon, be it of an experiment's noise; infinity where nothing bounds it."""
    bound = row.get(EPSILON_IF_HIDDEN, row["epsilon"])
    return math.inf if bound is None else float(bound)


def _figures_of(row: Mapping[str, Any]) -> list[str]:
    """Return noise, sample rate and steps of a plan, or of one part of what was reserved."""
    spent = row["steps"] > 0
    return [
        noise(row["noise_multiplier"]) if spent else "-",
        f"{row['sample_rate']:g}" if spent else "-",
        str(row["steps"]),
        str(row["steps_reserved"]),
    ]


def _is_bare(row: Mapping[str, Any]) -> bool:
    """Return whether a silo released by a mechanism that protects nobody."""
    from fedmodel.privacy.mechanisms import MECHANISMS

    return row["mechanism"] is not None and not MECHANISMS[row["mechanism"]].protects


def show_run(summary: dict[str, Any], run_dir: Path, *, every: bool = False) -> None:
    """Print a run's outcome for a person; of many silos equal rows as one, or every silo's."""
    from scenarios.runs import words
    from scenarios.runs.claims import NO_NOISE, OF_EXPERIMENT, early
    from scenarios.runs.own_code import sentence
    from scenarios.runs.usefulness import of_one_class_told_of, told_of

    timing, metrics = summary["timing"], summary["metrics"]
    about = (
        f": {counted(summary['rounds_completed'], 'round')}, {counted(summary['clients'], 'silo')},"
        f" {counted(summary['parameters'], 'parameter')}, {timing['seconds_total']:.1f} s on {summary['device']}"
    )
    out.print(Text.assemble((summary["scenario"], "bold"), about))
    used = ", ".join(f"{what} {name}" for what, name in summary["used"].items())
    out.print(f"Used: {used}", highlight=False)
    for row in summary.get("own_code", ()):
        out.print(f"Code of the user's own: {sentence(row)}", highlight=False, markup=False)
    out.print(_figures(metrics, out.width))
    if "ema_decay" in summary:
        out.print("These figures, and the model, are of the moving average of all rounds' models.", highlight=False)
    for reason in words.undefined(metrics, summary.get("left_out")):
        out.print(reason, highlight=False)
    if (useless := told_of(run_dir) or of_one_class_told_of(run_dir)) is not None:
        out.print(useless, style="yellow", highlight=False)
    if summary["class_weights"]:
        out.print(f"Class weights in training: {words.weights(summary['class_weights'])}; the loss above is without.")

    rows = summary["privacy"]
    out.print(_spent(rows, every=every))
    if (start := summary.get("start")) is not None:
        out.print(_began_from(start, rows), highlight=False)
    for name, found in summary.get("besides", {}).items():
        out.print(_besides(name, found), highlight=False)
    if any(row["source"] == words.BOOK for row in rows):
        out.print(words.NO_LEDGER, highlight=False)
    is_seeded = any(row["noise_source"] == "seeded-unsafe" for row in rows)
    is_baseline = any(_is_bare(row) for row in rows)
    is_experiment = any(EPSILON_IF_HIDDEN in row for row in rows)
    # Of noise that somebody can subtract nothing holds.
    told = None if is_seeded or is_experiment or is_baseline else early(rows)
    if told is not None:
        out.print(told, highlight=False)
    if is_baseline:
        out.print(NO_NOISE, style="bold red", highlight=False)
    elif is_experiment:
        out.print(OF_EXPERIMENT, style="bold red", highlight=False)
    elif is_seeded:
        out.print(
            "Noise was seeded: whoever knows the seed can remove it. These epsilons protect nobody.", style="bold red"
        )
    gone = {left["silo"] for left in summary["withdrawn"]}
    for dropout in (one for one in summary["dropouts"] if one["silo"] not in gone):
        told = f"{dropout['silo']} dropped out of {counted(dropout['rounds'], 'round')}: {dropout['code']}"
        out.print(told, style="yellow")
    for left in summary["withdrawn"]:
        out.print(f"{left['silo']} left in round {left['round']}: {left['code']}", style="yellow")
    if summary["ended_early"]:
        out.print(f"The run ended early: {summary['ended_early']}.", style="yellow", highlight=False)
    if summary["rounds_failed"]:
        failed = f"{counted(summary['rounds_failed'], 'round')} failed closed; the model stayed as it was."
        out.print(failed, style="yellow")
    out.print(_seen_by_server(summary["encryption"], "update, without noise" if is_baseline else "noised update"))
    out.print(inert(f"Run folder: {run_dir}"), soft_wrap=True, highlight=False, markup=False)


def show_claim(run_dir: Path, as_json: bool, **more: str) -> None:
    """Print what a report that was just made claims, and how it is verified."""
    from scenarios.report import build
    from scenarios.report.anchors import verify_command
    from scenarios.report.page_check import PAGE

    signed, page, verify = build.read_report(run_dir), run_dir / PAGE, verify_command(run_dir)
    sentence = signed.report.claim.sentence
    told = "\n".join(map(inert, (sentence, f"Report is verified by: {verify}", f"Report: {page}")))
    found = {"report": str(page), "signer": signed.key.hex(), "claim": sentence, "verify": verify}
    answer({**found, **more}, told, as_json)


def report_on(run_dir: Path, as_json: bool) -> None:
    """Write a run's report, and say where it is."""
    with err.status("reporting") if err.is_terminal else nullcontext():
        with loading():
            from scenarios.report.illustrated import write_report

        page = write_report(run_dir)
    show_report(page, as_json)


def show_report(page: Path, as_json: bool) -> None:
    """Print how a run's report is verified, and, last of all, where it lies, for a person."""
    if not as_json:
        from scenarios.report.anchors import verify_command

        out.print(inert(f"Report is verified by: {verify_command(page.parent)}"), soft_wrap=True, highlight=False)
        out.print(
            "Whoever is handed the folder has to get that key from you, and not from the folder.", highlight=False
        )
        out.print(inert(f"Report: {page}"), soft_wrap=True, highlight=False)
