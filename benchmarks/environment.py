"""What it costs that a command leaves out environment variables before it begins.

    python benchmarks/environment.py [--json]

`fedmodel scenarios` as the installed program starts it, in an environment with a variable that the interpreter has
read, so that it starts itself again, and, in the same run, without any of this. Each of a round in turn; the least of
all rounds, since other work on a machine only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

_ROUNDS = 15
_WAYS = {  # by what is told: the module whose `main` is called, and a variable
    "alone": ("scenarios.cli.main", {}),
    "settled": ("scenarios.cli.entry", {}),
    "started again": ("scenarios.cli.entry", {"PYTHONHASHSEED": "1"}),
}


def seconds(module: str, variables: dict[str, str]) -> float:
    """Return the processor's time that one command takes, which other work on a machine adds least to."""
    words = [sys.executable, "-c", f"from {module} import main; main()", "scenarios"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=os.environ | variables, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - fixed words
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rounds = [{name: seconds(*way) for name, way in _WAYS.items()} for _ in range(_ROUNDS)]
    found = {name: round(min(one[name] for one in rounds), 3) for name in _WAYS}
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {taken} s" for name, taken in found.items()))


if __name__ == "__main__":
    main()
