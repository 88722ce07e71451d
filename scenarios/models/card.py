"""A model's card: Markdown with the front matter that Hugging Face reads, for whoever is handed the model.

Guarantee: every figure of privacy is the one of the run's summary, rounded outwards as the report rounds it, with its
unit, its delta and the silo; a run without noise or with seeded noise has no such figure here, and the card says that
it protects nobody. So it does of an experiment's noise, of which figures are labelled as what they would be if it were
secret. What the card says of use and of limits is the same for every run, but for what follows from it.

Does NOT check anything: `report verify` computes the figures again from the silos' ledgers, and the card says so. Says
nothing of who may use the model: its license is whoever hands it out to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedmodel.config import ColumnConfig, Scenario
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.learning.description import Description
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT, IF_HIDDEN
from fedmodel.privacy.rounding import NO_BOUND, noise, small, up
from scenarios.models.formats import answered
from scenarios.models.trained import Trained
from scenarios.runs import words
from scenarios.runs.claims import NO_NOISE, OF_EXPERIMENT, early
from scenarios.runs.usefulness import told_of

CARD: Final = "README.md"
_SEEDED: Final = (
    "This run protects nobody: its noise was seeded, and whoever knows the seed can remove it. No epsilon holds for it."
)
_OPENED: Final = {
    "model.safetensors": """from pathlib import Path

from fedmodel.config import CsvForm
from scenarios.models.predict import predict
from scenarios.models.trained import read_model

scores = predict(read_model(Path("model.safetensors")), Path("data.csv"), CsvForm())
""",
    "model.pt2": """import torch

score = torch.export.load("model.pt2").module()
probabilities = score(features)  # float32, scaled as model.json says, one row per record
""",
    "model.onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(probabilities,) = session.run(None, {"features": features})  # float32, scaled as model.json says
""",
    "adapter_model.safetensors": """from peft import PeftModel

module = PeftModel.from_pretrained(base, ".")  # base: the model of transformers that is named below, for its task
""",
}
_LIMITS: Final = """\
- The records that the model is **used** on are not protected: they are read in the open, and each score tells of
  its record.
- What holds for one {unit} does not hold for a group of them, such as a family: its epsilon grows with its size.
- Differential privacy does not hide what is true of many. The model may tell what a disease goes with, of persons
  who took part and of others alike.
- The figures above are of the server's held-out records. No figure was measured for one group of persons by itself,
  or at one silo by itself; a model trained with noise is often worse for small groups. Measure before you rely on it.
- Records of other places, years or devices may differ from those that it was trained on, and nothing here notices.
- {answers} were not calibrated.
- What a run's figures leave out, such as side channels and silos that work together, stands in its report.
"""


def card(
    scenario: Scenario,
    summary: Mapping[str, Any],
    model: Trained,
    run_dir: Path,
    file: str,
    smaller: Sequence[str] = (),
) -> str:
    """Return a model's card.

    Args:
        scenario: What was done.
        summary: What came of it, as `summary.json` says.
        model: The model.
        run_dir: The run's folder.
        file: What the model's file beside the card is called.
        smaller: The section on what was done to make it smaller, where anything was.
    """
    return "\n".join([
        "---", *_front(scenario, summary, model), "---", "",
        f"# {scenario.name}", "",
        f"{_plain(scenario.summary[0].upper() + scenario.summary[1:])}.", "",
        *_data(scenario, model), *_use(model, file), *_figures(summary, run_dir), *smaller,
        *_privacy(scenario, summary["privacy"], answered(model).capitalize()), *_made(scenario, summary, model),
    ])  # fmt: skip


def _front(scenario: Scenario, summary: Mapping[str, Any], model: Trained) -> Iterator[str]:
    """Yield the front matter, in YAML whose values are JSON."""
    task = _task(model.description)
    tags = ["federated-learning", *(["differential-privacy"] if _protects(summary["privacy"]) else []), "fedmodel"]
    results = [
        {
            "task": {"type": task},
            "dataset": {"name": f"{scenario.data.data_set}, the server's held-out records", "type": "private"},
            "metrics": [{"type": name, "value": round(value, 4)} for name, value in summary["metrics"].items()],
        }
    ]
    for key, value in {
        "library_name": "fedmodel",
        **({} if task == "other" else {"pipeline_tag": task}),
        "tags": tags,
        "model-index": [{"name": scenario.name, "results": results}],
    }.items():
        yield f"{key}: {json.dumps(value)}"


def _task(description: Description) -> str:
    """Return what registries call the task: of texts, of tables or, of anything else, "other"."""
    if not description.columns or description.task == SURVIVAL:
        return "other"
    if not all(map(_is_text, description.columns)):
        return "tabular-regression" if description.task == "regression" else "tabular-classification"
    return "text-classification" if description.task in ("classification", "multi-label") else "other"


def _is_text(column: ColumnConfig) -> bool:
    """Return whether a column is a text, of which the beginning is read and no range is declared."""
    return column.type == "text"


def _data(scenario: Scenario, model: Trained) -> Iterator[str]:
    """Yield what it was trained on."""
    description, silos = model.description, scenario.federation.silos
    yield from ("## Data", "")
    yield (
        f"It was trained on {_code(description.source)}, held by {words.counted(len(silos), 'silo')}, none of which"
        " gave a record away: each sent noised updates of the model, and no exact count of its records."
        if not scenario.privacy.baseline
        else f"It was trained on {_code(description.source)}, held by {words.counted(len(silos), 'silo')}."
    )
    yield f"It predicts {_predicted(description)}."
    yield ""
    if description.columns:
        yield from ("| Column | Type | Range or choices, as declared |", "|---|---|---|")
        for column in description.columns:
            first = f"its first {column.length} bytes" if column.length else ""
            if column.tokenizer is not None:
                first = f"its first {column.length} tokens, by the tokenizer with sha256 {column.tokenizer.sha256}"
            told = (
                first
                or ", ".join(map(_code, column.categories))
                or ("true, false" if column.range is None else f"{column.range[0]:.12g} to {column.range[1]:.12g}")
            )
            yield f"| {_code(column.name)} | {column.type} | {told} |"
        yield ""
        if len(description.shape) > 1:
            yield f"In this order, the features are a record of shape {'x'.join(map(str, description.shape))}."
        if not all(map(_is_text, description.columns)):
            yield "Ranges are declared as public references; that none was read off the records is the author's word."
    else:
        yield f"A record is {description.record}."
    yield ""


def _predicted(description: Description) -> str:
    """Say what is predicted."""
    named = f"{_code(description.label)}, " if description.label else ""
    labels = words.listed([_code(label) for label in description.labels])
    match description.task:
        case "regression":
            what = "a number" if description.data.outputs == 1 else f"{description.data.outputs} numbers"
            if description.label_range is None:
                return f"{named}{what}"
            low, high = description.label_range
            return (
                f"{named}{what} from {low:.12g} to {high:.12g}, a range that is declared as a public reference; what"
                " lies outside of it was learnt, and is counted in the figures below, as its end"
            )
        case "multi-label":
            return f"{named}which of {labels} there are"
        case "classification":
            return f"{named}one of {labels}"
        case "survival":
            ends = words.listed([f"{end:.12g}" for end in description.ends])
            event = f" ({_code(description.label)})" if description.label else ""
            return f"the chance to be without the event{event} at {ends} {description.time_unit}"
        case _:
            return f"{named}one of {description.data.classes} tokens or labels at each position"


def _use(model: Trained, file: str) -> Iterator[str]:
    """Yield how it is used."""
    yield from ("## Use", "")
    if model.description.task != "classification":
        yield "`model.json` beside this card says how a record is read and scaled, and what is answered."
    else:
        yield _by_threshold(model)
    yield from ("", "```python", _opened(model, file), "```", "")
    yield (
        "Nobody examined it as a medical device, and nobody has shown that decisions made with it are good ones. Use it"
        " to support a person who answers for the decision, and not to decide alone."
    )
    yield ""


def _opened(model: Trained, file: str) -> str:
    """Return how the file is opened, in Python."""
    text = _OPENED[file].rstrip()
    if isinstance(model.description.model, HfConfig):
        text = text.replace('Path("model.safetensors"))', 'Path("model.safetensors"), base=Path("BASE"))')
    return text.replace("probabilities", answered(model))


def _by_threshold(model: Trained) -> str:
    """Say which class is predicted."""
    return (
        "`model.json` beside this card says how a record is read and scaled, and what the classes are called. Of two"
        f" classes the second is predicted where its probability is over {model.description.threshold:g}; another"
        " threshold trades one kind of mistake for the other, and is for a person to choose."
        if len(model.description.labels) == 2
        else "`model.json` beside this card says how a record is read and scaled, and what the classes are called. The"
        " class of the highest probability is predicted."
    )


def _figures(summary: Mapping[str, Any], run_dir: Path) -> Iterator[str]:
    """Yield how good it is."""
    yield from ("## Figures", "", "On the server's own held-out records:", "")
    metrics = summary["metrics"]
    yield from (f"| {' | '.join(metrics)} |", f"|{'---|' * len(metrics)}")
    yield from (f"| {' | '.join(map(words.metric, metrics.values()))} |", "")
    for reason in words.undefined(metrics, summary.get("left_out")):
        yield from (reason, "")
    if (useless := told_of(run_dir)) is not None:
        yield from (f"**{useless}**", "")


def _privacy(scenario: Scenario, rows: Sequence[Mapping[str, Any]], answers: str) -> Iterator[str]:
    """Yield the claim, and its limits."""
    yield from ("## Privacy", "")
    if not _protects(rows):
        yield from (f"**{_protecting_nobody(scenario)}**", "")
        yield "Hand it to nobody who may not read the records themselves."
        if any(EPSILON_IF_HIDDEN in row for row in rows):
            yield from ("", f"| Silo | Epsilon {IF_HIDDEN} | Delta |", "|---|---|---|")
            for row in rows:
                would = up(row.get(EPSILON_IF_HIDDEN, row["epsilon"]))
                yield f"| {row['silo']} | {would} {IF_HIDDEN} | {small(row['delta'])} |"
        return
    unit = rows[0]["unit"]
    each = unit if unit == "record" else f"{unit} with at most {words.counted(rows[0]['max_records'], 'record')}"
    yield (
        f"All that left a silo in the run, this model among it, is (epsilon, delta)-differentially private for every"
        f" {each} of that silo, against whoever sees it and whatever else they know. Neighbours differ by adding or"
        f" removing one such {unit}. Epsilon is of the whole plan, wherever the run ended, and is rounded up."
    )
    yield from ("", "| Silo | Epsilon | Delta | Noise multiplier |", "|---|---|---|---|")
    for row in rows:
        multiplier = noise(row["noise_multiplier"]) if row["steps"] else "took no step"
        yield f"| {row['silo']} | {up(row['epsilon'])} | {small(row['delta'])} | {multiplier} |"
    yield ""
    if (shorter := early(rows)) is not None:
        yield from (shorter, "")
    if any(row["epsilon"] is None for row in rows):
        yield from (f'"{NO_BOUND}" means that nothing is claimed for that silo.', "")
    if any(row["source"] == words.BOOK for row in rows):
        yield from (words.NO_LEDGER, "")
    if any(row["source"] == "reported" for row in rows):
        yield from (
            "The figures are what silos reported to the server. Their own ledgers have the last word.",
            "",
        )
    yield from ("### Limits", "")
    yield _LIMITS.format(unit=unit, answers=answers).rstrip()


def _protecting_nobody(scenario: Scenario) -> str:
    """Say why a run protects nobody."""
    if scenario.privacy.baseline is not None:
        return NO_NOISE
    return OF_EXPERIMENT if scenario.privacy.noise == EXPERIMENT else _SEEDED


def _made(scenario: Scenario, summary: Mapping[str, Any], model: Trained) -> Iterator[str]:
    """Yield where it comes from."""
    yield from ("", "## Where it comes from", "")
    yield f"- Scenario {_code(scenario.name)}, SHA-256 `{model.description.scenario_hash}`."
    yield f"- `model.safetensors` as the server wrote it, SHA-256 `{model.sha256}`: what silos countersign."
    yield f"- Code, SHA-256 `{summary['code_hash']}`."
    if isinstance(config := model.description.model, HfConfig):
        yield (
            f"- Trained on a base, SHA-256 `{config.sha256}`, for task `{config.task}`; nothing of the base is in the"
            " file, and what stands in the base is no part of the figures of privacy."
        )
        if config.base_precision != "float32":
            yield (
                f"- The base's matrices were held in `{config.base_precision}`, and answers are of these; on the base"
                " in float32 the same adapters answer a little otherwise."
            )
    if (decay := scenario.training.ema_decay) is not None:
        yield (
            f"- It is the exponential moving average of the models after all whole rounds, with a decay of"
            f" {decay:.12g}, and the figures above are of it."
        )
    yield (
        f"- {words.counted(summary['rounds_completed'], 'whole round')}, {summary['parameters']:,} parameters."
        " `fedmodel report verify RUN` computes the figures of privacy again from the silos' ledgers."
    )
    yield ""


def _protects(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether anybody is protected by the run."""
    return all(row["protects"] for row in rows)


def _code(text: str) -> str:
    """Return a name as code, which does nothing in a page or a table."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def _plain(text: str) -> str:
    """Return a sentence's text without what Markdown or HTML would act on."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>()#+!|&~" else sign for sign in text)
