"""What a run with seeded noise is, in a few hashes: to show that a change of the code's shape changed no bit of it.

`python -m tests.digests record` runs every shipped scenario with `privacy.noise = "seeded-unsafe"` and writes what came
of it to `tests/vectors/digests.json`; `python -m tests.digests [SCENARIO]...` runs them, or all, again and tells what
differs. A hash is of one part: the final model byte for byte, `metrics.jsonl`, `summary.json`, the report as a document
and as a page, the registry's entry, and the entries of every ledger. Left out is what no two runs have in common:
times, keys, signatures, hashes over them, the hash of the code, and the packages that are installed. Figures are
compared to nine decimals: which way numpy adds up in accounting hangs on where an array lies in memory, and noise is
calibrated by that. The model is compared to the bit.

Sums in floating point hang on the machine's vector units and on the version of torch, so that the digests are of one
machine; `made_on` says of which. Not covered: what a run that a person may trust draws, since that is drawn anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from fedmodel.crypto import digest
from scenarios.cli import main as program

RECORDED = Path(__file__).parent / "vectors" / "digests.json"
NOT_EVERYWHERE = ("fashion", "speeches")
"""Scenarios of data sets that Python's package index does not have, and so not every machine."""
_COMMAND = (sys.executable, "-c", f"import {program.__name__} as command; command.main()")
SCENARIOS = ("quickstart", "hospitals", "digits", "dropout", "budget-exhausted", "heart", "credit", "survival")
# Of the moment, of what is installed beside, or of keys made for one run. `head` and `verifier_key` are a ledger's
# signature and its key.
_OF_ONE_RUN = {"timing", "seconds", "head", "verifier_key", "dependencies", "dependencies_hash"}
_WORDS = (
    (re.compile(r"\b[0-9a-f]{16,}\b"), "<hex>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?"), "<time>"),
    (re.compile(r"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d"), "<time>"),
    (re.compile(r"^[A-Za-z0-9+/]{43}=$", re.MULTILINE), "<root>"),
    (re.compile(r"(?<=^\u2014 )(fedmodel/v1/ledger/[\w-]+) [A-Za-z0-9+/]+=*$", re.MULTILINE), "<signature>"),
    (re.compile(r"fedmodel/v1/ledger/[\w-]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*"), "<key>"),
    (re.compile(r"(?<=parameters, )\d+\.\d+ s\b"), "<seconds>"),
    (re.compile(r'<h3>Versions of .*?</h3>\s*<ul class="versions".*?</ul>', re.DOTALL), "<versions>"),
    (re.compile(r'<figure class="plot"><img class="plot" alt="A handwritten digit.*'), "<pictures of an attack>"),
)


def made_on() -> dict[str, str]:
    """Return what the sums of a run hang on."""
    return {
        "machine": platform.machine(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def steady(value: Any) -> Any:
    """Return a value without what no two runs have in common."""
    if isinstance(value, dict):
        return {steady(key): steady(one) for key, one in value.items() if key not in _OF_ONE_RUN}
    if isinstance(value, list):
        return [steady(one) for one in value]
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, str):
        for pattern, word in _WORDS:
            value = pattern.sub(word, value)
    return value


def parts_of(folder: Path) -> dict[str, Any]:
    """Return what is compared of a run's folder: bytes of the model, and the rest as data."""
    parts: dict[str, Any] = {
        "model": (folder / "model.safetensors").read_bytes().hex(" "),
        "metrics": [steady(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "summary": steady(json.loads((folder / "summary.json").read_text())),
        "report": steady(json.loads((folder / "report.json").read_text())),
        "registry": steady((folder / "registry.yaml").read_text()),
        "page": steady((folder / "report.html").read_text()),
    }
    for ledger in sorted((folder / "ledgers").glob("*.sqlite")):
        told = subprocess.run([*_COMMAND, "ledger", "export", ledger], check=True, capture_output=True, text=True)
        parts[f"ledger of {ledger.stem}"] = [steady(json.loads(line)) for line in told.stdout.splitlines()]
    return parts


def hashes_of(folder: Path) -> dict[str, str]:
    """Return a hash of each part of a run's folder."""
    return {name: digest(b"fedmodel/v1/test", json.dumps(part, sort_keys=True).encode()).hex()
            for name, part in parts_of(folder).items()}  # fmt: skip


def run(name: str, out: Path) -> Path:
    """Run a shipped scenario with seeded noise, as the command does."""
    command = [*_COMMAND, "simulate", name, "--set", "privacy.noise=seeded-unsafe", "--device", "cpu", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    return out


def differences(name: str, out: Path) -> list[str]:
    """Return the parts in which a scenario's run now differs from the recorded one."""
    recorded, now = json.loads(RECORDED.read_text())["scenarios"][name], hashes_of(run(name, out))
    return sorted(part for part in recorded.keys() | now.keys() if recorded.get(part) != now.get(part))


def main() -> int:
    """Record, or compare those that are named, all where none is."""
    parser = argparse.ArgumentParser(prog="python -m tests.digests", description=__doc__.partition("\n")[0])
    parser.add_argument("named", nargs="*", metavar="record | SCENARIO", help=f"of {', '.join(SCENARIOS)}; all if none")
    named = parser.parse_args().named
    if named != ["record"] and not set(named) <= set(SCENARIOS):
        parser.error(f"found {' '.join(named)}; name scenarios of {', '.join(SCENARIOS)}, or record alone")
    with tempfile.TemporaryDirectory() as folder:
        if named == ["record"]:
            told = {name: hashes_of(run(name, Path(folder) / name)) for name in SCENARIOS}
            RECORDED.write_text(json.dumps({"made_on": made_on(), "scenarios": told}, indent=1) + "\n")
            return 0
        found = {name: differences(name, Path(folder) / name) for name in named or SCENARIOS}
    for name, parts in found.items():
        sys.stdout.write(f"{name}: {'the same' if not parts else 'differs in ' + ', '.join(parts)}\n")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
