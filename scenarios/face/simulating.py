"""`fedmodel.simulate`: a scenario, or a script's own model and data, over simulated silos on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack, overload

from fedmodel import config
from fedmodel.errors import ConfigError
from scenarios.face.run import Run
from scenarios.face.said import Objects
from scenarios.face.scenario import Scenario, listed
from scenarios.face.watching import goes_on, watching


@overload
def simulate(
    scenario: str | Path | config.Scenario,
    settings: Iterable[str] = (),
    *,
    engine: str | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    progress: bool = True,
) -> Run: ...


@overload
def simulate(
    scenario: None = None,
    settings: Iterable[str] = (),
    *,
    engine: str | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    progress: bool = True,
    **objects: Unpack[Objects],
) -> Run: ...


def simulate(
    scenario: str | Path | config.Scenario | None = None,
    settings: Iterable[str] = (),
    *,
    engine: str | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    progress: bool = True,
    **objects: Any,
) -> Run:
    """Train a model over simulated silos on this machine: that of a scenario, or your own on your own records.

    Every figure of privacy is said: `epsilon` or `noise_multiplier`, `delta`, `max_grad_norm` and `sample_rate`. One
    that is missing is refused in a line that says what it decides. What else is left out is written into the scenario.

    Args:
        scenario: A TOML file, the name of a built-in scenario, or a `Scenario`. Leave it out to give objects.
        settings: `a.b=value` overrides, each value in TOML, or a bare word for a string.
        engine: What carries the run: "in-process"; "vectorised", which trains many silos together and keeps no ledger
            of any; "ray", which does so on the nodes of a Ray cluster; or "flower" for Flower's own runtime. The last
            two take no objects that live in this process alone.
            Default: "in-process", and from 200 silos on "vectorised", where that takes the scenario.
        device: Where silos train: "auto", "cpu", "cuda", or "cuda:N" for one of several cards.
        out: The run's folder: new, empty, or of a run that was cut short, which goes on then. Default: under `runs/`.
        progress: Whether a bar over rounds is shown, at a terminal or in a notebook.
        objects: Instead of a scenario:

            model: A class or a function that makes a `torch.nn.Module`; its first parameters are drawn from the
                scenario's seed. Or a module: a copy of it is trained, and its parameters are the start. Handing a
                module over says that no private record is in them, and the run's report says that you said so. Or
                `fedmodel.Base`, a model that was trained before, whose adapters are trained.
            model_args: Arguments of that class or function, plain values.
            weight_standardization: Whether weights of its plain linear layers and 2-D convolutions but the last are
                brought to one size before they are used. Default: False.
            train: Records: a map-style `Dataset`, a pair of tensors or arrays `(x, y)`, a pandas or Polars frame with
                `label`, a Hugging Face `Dataset`; or a list with one of them for each silo. Of a base, texts: a pair of
                lists, a frame or a `Dataset` with a column of texts, or, for next tokens, a list of texts.
            task: What is learnt: "classification", "multi-label", "regression", "next-token" or "sequence-labels"
                (docs/data.md). Default: "classification", and of a base what it learns.
            target_range: Of a regression: the public range of what is predicted, to which it is bounded.
            test: Records on which the server evaluates; of no person, under unit = "person", whose others are dealt.
            held_out: Where there is no test, the share of train that becomes it. Default: 0.2.
            label: The column or key to predict.
            labels: Names of the classes, in order.
            person: The column or key that says whose a record is.
            loss: Each record's own loss, by name, as a function of outputs and targets, or as a module of torch's with
                `reduction="none"`. Default: "cross-entropy".
            metrics: Figures besides, by name or as functions; one alone needs no list. A function is given the model's
                answers of the server's records, a row for each, and their targets, both as NumPy arrays, and returns a
                number.
            silos: How many, or their names; a list of `train` says it.
            partition: How records are dealt, such as `fedmodel.Dirichlet(0.3)`.
            augment: How copies of a record differ by chance, such as {"flip": "horizontal", "views": 4}, of which all
                views of one record count as one (docs/scenarios.md).
            cohort: How many silos are asked each round. Default: all.
            rounds: How many.
            epsilon: What a silo's records may lose in the whole run, each of them. Or `noise_multiplier`.
            unit, max_records: Whom the claim protects. Default: "record". A "person" has at most so many records.
            delta: With what probability that may fail; under one over a silo's records.
            max_grad_norm: The clip: how far one record moves a step's sum.
            sample_rate: Each record's chance to be in a step's lot.
            expected_batch_size: By what sums are divided, a public number. Default: the sample rate of an even share
                of the records, or of the smallest data set of a list, rounded down. How many these are is then public;
                under unit = "client", which hides that, there is no default.
            optimizer, learning_rate, momentum: Default: plain SGD at 0.1.
            local_steps, local_epochs: How long a silo trains each round. Default: one epoch, 1 / sample_rate steps.
            proximal: FedProx's mu, by which each step is pulled back to the model that its silo was given. Default: 0.
            schedule: Which share of the learning rate rounds have, such as {"decay": "cosine", "warm_up_rounds": 2}.
            lots: From which rounds on lots are larger, such as [{"from_round": 6, "times": 2}]. Default: none.
            ema_decay: Of a moving average of the rounds' models, which is then the run's model. Default: none.
            gradients: How clipped sums are computed: "auto", "book-keeping", "hooks", "functional" or
                "one-by-one". Default: "auto".
            max_physical_batch: Most records in memory at once, or "auto" for as many as fit. Default: 512.
            threads: Threads that a silo trains with, or "auto" for all cores. Default: 1.
            precision: In which silos compute: "float32", or "bf16" for mixed precision. Default: "float32".
            strategy, strategy_options: What the server does with updates (docs/strategies.md), by name, or a class or
                a function that makes it. Default: "fedavg".
            min_silos: With how few updates a round counts. Default: 2.
            seed: Of the partition, cohorts and first parameters; never of noise. Default: drawn, and kept in the run.
            name: Of the scenario. Default: that of the model.

            Updates are not masked; settings say so: ["encryption.secure_aggregation=on", "encryption.bound=1.0"].

    Returns:
        The run, with its model, figures and folder.

    Raises:
        ConfigError: When something is missing or not acceptable; nothing was written then.
        DataError: When records are not what they should be; nothing was written then.
        FedmodelError: When the run fails; what was written until then stays.
        KeyboardInterrupt: When it was interrupted. `Run.read` reads what there is, and the same call goes on.
    """
    from scenarios.simulation.prepared import prepare

    place, settings = None if out is None else Path(out), listed(settings)
    asked = _asked(scenario, settings, place, objects)
    made = asked if isinstance(asked, Scenario) else None
    if made is not None:
        made.hand_over()
    prepared = prepare(asked, settings if made is None else (), engine, device, place)
    with prepared.held() as run_dir, goes_on(run_dir):
        bar = watching(run_dir / "metrics.jsonl", prepared.scenario, progress=progress)
        summary = prepared.run(run_dir, bar)
    return Run(run_dir, Scenario.of_section(prepared.scenario, {} if made is None else made.objects), summary)


def _asked(
    scenario: str | Path | config.Scenario | None, settings: tuple[str, ...], out: Path | None, objects: dict[str, Any]
) -> str | Path | Scenario:
    """Return what is asked for: a file, or a scenario with a seed, that of the run that began in the folder if any."""
    from scenarios.simulation.resuming import begun_in

    if scenario is None and not objects:
        raise ConfigError("nothing is asked for: give a scenario, or your own model, train and the rest")
    if scenario is not None and objects:
        raise ConfigError(f"a scenario says its own {', '.join(objects)}; change it by settings, or by scenario.with_")
    if isinstance(scenario, str | Path):
        return scenario
    begun = begun_in(out)
    seed = None if begun is None else begun.seed
    if scenario is None:
        return Scenario.of(settings=settings, **objects).seeded(seed)
    if settings:
        raise ConfigError("settings override keys of a file; a Scenario that was made already says its own")
    return Scenario.of_section(scenario).seeded(seed)
