"""`fedmodel.audit`: a scenario run with canaries among its records, and attacked."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Final, Literal, Never

from fedmodel import config
from fedmodel.errors import ConfigError
from scenarios.face.run import Run
from scenarios.face.scenario import Scenario, listed
from scenarios.face.watching import watching

_CANARIES: Final = "canaries"  # as a script says their number


@dataclass(frozen=True, repr=False)
class Audit:
    """What an audit found. A notebook shows the verdict and the bounds.

    Attributes:
        run: The run that was attacked.
        found: Everything that was found, as `audit.json` in the run's folder has it.
    """

    run: Run
    found: dict[str, Any] = field(hash=False)

    @property
    def verdict(self) -> Literal["not-refuted", "refuted", "inconclusive"]:
        """Whether the claim was refuted. "not-refuted" is no proof: an attack found no more than was claimed."""
        verdict: Literal["not-refuted", "refuted", "inconclusive"] = self.found["verdict"]
        return verdict

    @property
    def lower_bounds(self) -> dict[str, float]:
        """By estimator, a lower bound on the epsilon of what was run; each has a confidence of its own in `found`."""
        return {name: bound["epsilon"] for name, bound in self.found["lower_bounds"].items()}

    def __repr__(self) -> str:
        return f"<Audit {self.verdict}: {'; '.join(self.found['reasons'])}; {self.run.folder}>"

    def _repr_html_(self) -> str:
        from scenarios.face.shown import audit_html

        return audit_html(self.found)


def audit(
    scenario: str | Path | config.Scenario,
    settings: Iterable[str] = (),
    *,
    canaries: int | None = None,
    kind: Literal["probe", "loss"] = "probe",
    significance: float = 0.05,
    device: str = "auto",
    out: str | Path | None = None,
    progress: bool = True,
    **unknown: Never,
) -> Audit:
    """Run a scenario with canaries among its records, and try to refute its claim (docs/audit.md).

    A script's own model and data are audited as `audit(Scenario.of(model=..., train=..., ...))`.

    Args:
        scenario: A TOML file, the name of a built-in scenario, or a `Scenario`.
        settings: `a.b=value` overrides of a file.
        canaries: Of all silos together. Default: 1,000, or up to 4,000 where fewer would find too little.
        kind: "probe", in a block of parameters of their own, or "loss", made-up records.
        significance: Chance to refute a claim that holds.
        device: Where silos train.
        out: The run's folder; new or empty. Default: under `runs/`.
        progress: Whether a bar over rounds is shown.
        unknown: None; what it takes is said where one is given.

    Raises:
        TypeError: When an argument has a name that is not known.
        ConfigError: When the scenario is not acceptable; nothing was written then.
        Inconclusive: When the audit could find too little; nothing was run then.
        FedmodelError: When the run fails.
    """
    if unknown:
        name, known = next(iter(unknown)), [one for one in signature(audit).parameters if one != "unknown"]
        near = get_close_matches(name, known, n=1)
        raise TypeError(
            f"{name!r} is no argument of an audit; "
            + (
                f"did you mean {near[0]!r}?"
                if near
                else f"it takes {', '.join(known)}; of objects, audit Scenario.of(...)"
            )
        )
    asked = _asked(scenario, listed(settings))
    from scenarios.simulation.prepared import open_own_code, own_logging

    asked.hand_over()
    open_own_code(asked, scenario)
    with own_logging():
        from scenarios.audit.carrying import carried, check_power
        from scenarios.audit.planning import planned
        from scenarios.simulation.simulate import check_scenario, placed, resolve_device, run_folder

        resolved, plan = planned(placed(asked), canaries, kind, significance, _CANARIES)
        check_power(plan, _CANARIES)
        where, parameters = resolve_device(device), check_scenario(resolved)
    with run_folder(resolved, None if out is None else Path(out)) as run_dir:
        bar = watching(run_dir / "metrics.jsonl", resolved, progress=progress)
        summary, found = carried(resolved, parameters, plan, where, run_dir, bar, nullcontext())
    return Audit(Run(run_dir, Scenario.of_section(resolved, asked.objects), summary), found)


def _asked(scenario: str | Path | config.Scenario, settings: tuple[str, ...]) -> Scenario:
    """Return the scenario that is asked for, with a seed."""
    if not isinstance(scenario, config.Scenario):
        return Scenario.read(scenario, settings)
    if settings:
        raise ConfigError("settings override keys of a file; a Scenario that was made already says its own")
    return Scenario.of_section(scenario).seeded()
