"""`python -m docs.proofs`: ask the solver about every federation and every rule, and print what it says.

Exit status 0 where every claim holds under all rules, and each rule taken out is an attack; 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

try:
    from docs.proofs.model import BASE, COMMIT, LEDGER, MASKED_WITH, ONE_LIST, RULES, SURVIVORS, Size
    from docs.proofs.search import CLAIMS, Search
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing; run: pip install 'z3-solver>=4.13'   (or: pip install -e '.[dev]')")


@dataclass(frozen=True)
class Attack:
    """What a server gains where one rule is taken out."""

    rule: str
    size: Size
    claim: str


QUICK = (Size(3), Size(4, 1), Size(5, 2, 4))
HOLD = (
    *QUICK,
    Size(5, 1),
    Size(5, 1, 4),
    Size(4, 1, steps=7, restores=True),
    Size(4, rosters=2),
    Size(3, attempts=2, steps=12),
    Size(3, rounds=2, steps=9, restores=True),
    Size(4, 1, steps=9, restores=True),
    Size(4, 1, rosters=2, steps=8, restores=True),
    Size(5, rosters=2),
)
ATTACKS = (
    Attack(SURVIVORS, Size(4, 1, cohorts=1), "a small sum"),
    Attack(BASE, Size(5, rosters=2, cohorts=1), "a small sum"),
    Attack(LEDGER, Size(4, 1, steps=8, restores=True, cohorts=1), "two secrets"),
    Attack(LEDGER, Size(4, 1, steps=8, restores=True, cohorts=1), "two updates"),
    Attack(LEDGER, Size(4, 1, steps=8, restores=True, cohorts=1), "a small sum"),
    Attack(COMMIT, Size(4, 1, cohorts=1), "a small sum"),
    Attack(MASKED_WITH, Size(4, 1, cohorts=1), "a small sum"),
    Attack(ONE_LIST, Size(4, 1, steps=7, cohorts=1), "a small sum"),
)


def said(size: Size) -> str:
    """Return a federation in words."""
    words = f"{size.silos} silos, {size.colluding} colluding, n_min {size.n_min}, {size.steps} requests to each"
    more = [
        f"{size.rounds} rounds" if size.rounds > 1 else "",
        f"{size.attempts} attempts" if size.attempts > 1 else "",
        "a newer roster" if size.rosters > 1 else "",
        "restores" if size.restores else "",
        "one cohort" if size.cohorts == 1 else "",
    ]
    return ", ".join([words, *(word for word in more if word)])


def broken(size: Size, rules: frozenset[str] = RULES) -> dict[str, float | None]:
    """Return by claim how long it took to show that it holds in every round and attempt; None where it does not."""
    search, found = Search(size, rules), {}
    for claim in CLAIMS:
        started = time.monotonic()
        runs = [search.find(claim, at, attempt) for at in range(size.rounds) for attempt in range(size.attempts)]
        found[claim] = None if any(runs) else time.monotonic() - started
    return found


def main() -> int:
    """Print the two tables."""
    parser = argparse.ArgumentParser(prog="python -m docs.proofs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest federations alone, in half a minute")
    quick = parser.parse_args().quick
    right = True
    print("With every rule: is there a run that breaks a claim?")
    for size in QUICK if quick else HOLD:
        search = Search(size)
        works = search.run_with(search.opens_a_sum(max(1, size.n_min - size.colluding))) is not None
        found = broken(size)
        right &= works and None not in found.values()
        told = {claim: "YES" if took is None else f"no ({took:.1f} s)" for claim, took in found.items()}
        words = "; ".join(f"{claim}: {answer}" for claim, answer in told.items())
        print(f"  {said(size)}\n    {words}{'' if works else '; NO SUM OPENS AT ALL'}", flush=True)
    print("With one rule taken out:")
    for attack in ATTACKS:
        run = Search(attack.size, RULES - {attack.rule}).find(attack.claim)
        right &= run is not None
        print(f"  {attack.rule}: {said(attack.size)}\n    {attack.claim}: {'YES' if run else 'no'}", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
