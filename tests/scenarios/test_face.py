"""`import fedmodel`, as a researcher's script meets it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedmodel as fm
from fedmodel import errors
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

ROOT = Path(__file__).parents[2]


def test_every_name_of_the_face_is_there_and_is_what_it_is_called() -> None:
    for name in fm.__all__:
        assert getattr(fm, name).__name__ == ("fedmodel.audit" if name == "audit" else name)
    assert set(fm.__all__) <= set(dir(fm))
    assert fm.ConfigError is errors.ConfigError


CALLED_TWICE = """
import fedmodel as fm
def call():
    try:
        fm.audit("no-such")
    except fm.ConfigError as error:
        print(error)
call()
import fedmodel.audit.plan
call()
print(fedmodel.audit.plan.__name__)
"""


def test_the_audit_can_be_called_whatever_was_imported_before_and_stays_a_package() -> None:
    done = subprocess.run([sys.executable, "-c", CALLED_TWICE], capture_output=True, text=True, check=True)
    first, second, name = done.stdout.splitlines()
    assert first == second
    assert first.startswith("no-such: no such file")
    assert name == "fedmodel.audit.plan"


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'fit'; it offers .*simulate"):
        fm.fit  # noqa: B018


def test_importing_it_imports_nothing_else() -> None:
    told = "import sys; before = set(sys.modules); import fedmodel; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd="/")
    assert [name for name in found.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names] == ["fedmodel"]


def test_budget_figures_are_those_of_the_accountant_that_claims_are_made_by() -> None:
    plan = {"sample_rate": 0.1, "steps": 100, "delta": 1e-5}
    event = DpSgdEvent(1.5, 1.0, 0.1, 100, denominator=1, max_records=2)
    found = fm.epsilon(noise_multiplier=1.5, max_records=2, **plan)
    assert found == accounting.epsilon([event], 1e-5, accounting.COARSE_GRID)
    noise = fm.noise_multiplier(epsilon=found, max_records=2, **plan)
    assert noise <= 1.5 * (1 + 1e-3)
    assert fm.epsilon(noise_multiplier=noise, max_records=2, **plan) <= found * (1 + 1e-2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"noise_multiplier": 0.0}, "noise"), ({"sample_rate": 2.0}, "sample"), ({"steps": 0}, "steps")],
)
def test_a_figure_out_of_range_is_one_line(changed: dict[str, float], said: str) -> None:
    plan = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 100, "delta": 1e-5}
    with pytest.raises(fm.ConfigError, match=said):
        fm.epsilon(**{**plan, **changed})  # type: ignore[arg-type]


def test_the_readmes_snippet_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    told = [line.split("# ", 1)[1] for line in snippet.splitlines() if line.startswith("print(") and "# " in line]
    assert len(told) >= 2
    for line, shape in zip(done.stdout.splitlines(), told, strict=True):
        assert re.sub(r"\d+\.\d+", "N", line) == re.sub(r"\d+\.\d+", "N", shape)
