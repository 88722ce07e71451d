"""The verb `graph`: who masks with whom, and how many shares bring a secret back."""

from __future__ import annotations

import math
from typing import Annotated, Final

import typer

from fedmodel.privacy.rounding import down
from fedmodel.system.counts import counted, one_or_more
from scenarios.cli.printing import Json, answer
from scenarios.cli.verbs import Verb

_TRIED: Final = 2**50  # orders that a hostile server looks at


def graph(
    silos: Annotated[int, typer.Option(help="Silos in a cohort, from 3.")],
    colluding: Annotated[int, typer.Option(help="Silos that may work with the server.")],
    dropping: Annotated[int, typer.Option(help="Silos that may vanish in a round.")],
    bits: Annotated[int, typer.Option(help="-log2 of a dealing's failure probability, above 300 silos.")] = 80,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds of a run.")] = 1,
    window: Annotated[int, typer.Option(min=1, max=256, help="Rounds that one dealing serves.")] = 8,
    as_json: Json = False,
) -> None:
    """Say who masks with whom in secure aggregation, and how many shares bring a secret back."""
    from fedmodel.secagg.topology import log2_of_run, plan_topology

    plan = plan_topology(silos, colluding, dropping, bits)
    dealings = math.ceil(rounds / window)
    left = [max(0.0, -log2_of_run(bits, orders)) for orders in (dealings, dealings + _TRIED)]
    of_run, ground = (f"2^-{down(bits_left, 1)}" for bits_left in left)
    found = {
        "silos": plan.silos,
        "graph": "complete" if plan.complete else "ring",
        "neighbours": plan.degree,
        "threshold": plan.threshold,
        "failure": None if plan.complete else f"2^-{bits}",
        "failure_of_run": None if plan.complete else of_run,
        "failure_after_2^50_tries": None if plan.complete else ground,
        "false_shares_found": plan.decoded,
    }
    surely = "with certainty"
    if not plan.complete:
        surely = (
            f"but for a probability of 2^-{bits} a window, of {of_run} in a run of {counted(rounds, 'round')}, and of"
            f" {ground} against a server that looks for a graph among 2^50"
        )
    line = (
        f"threshold {plan.threshold}, {counted(plan.degree, 'neighbour')} each ({found['graph']}); no single update is"
        f" learned with up to {colluding} colluding, {surely}; up to {counted(plan.decoded, 'false share')} of a secret"
        f" {one_or_more(plan.decoded, 'is', 'are')} found, while no share is missing"
    )
    answer(found, line, as_json)


VERBS: Final = (Verb(20, "graph", graph),)
