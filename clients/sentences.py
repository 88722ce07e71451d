"""A silo's law in sentences, one for each rule, for a person to read and to sign off before it is enforced.

They say what `clients.policy` refuses by, from the same file, with every figure rounded to the side of caution.

Does NOT enforce anything, and does not read what lies in a table.
"""

from __future__ import annotations

from typing import Final

from clients.policy import aggregation_of, hours_told, scope_of
from fedmodel.config import SiloFile, TableSource
from fedmodel.privacy.events import EXPERIMENT
from fedmodel.privacy.rounding import down, small, up
from fedmodel.secagg.topology import COMPLETE_UP_TO
from fedmodel.system.counts import counted, one_or_more

_FORMS: Final = {
    "text": "ids are one person's if they are alike but for outer space, width and Unicode's ways to write a letter",
    "caseless": "ids are one person's if they are alike but for case, outer space, width and Unicode's ways to write a"
    " letter",
    "digits": "ids are one person's if they are the same whole number, leading zeros or not",
}


def sentences(law: SiloFile) -> list[str]:
    """Return the law in sentences for a person to sign off, one for each rule."""
    hidden = {
        "on": f"Updates leave masked: a server opens sums of at least {counted(law.min_silos, 'silo')}, and no single"
        " update.",
        "simulated": "Updates leave UNMASKED: the server sees each one. Secure aggregation is only simulated.",
        "off": "Updates leave UNMASKED: the server sees each one.",
    }[law.encryption.secure_aggregation]
    said = [
        f"This is the law of silo {law.name}. No server can loosen it.",
        _listed("It answers servers that sign with", law.servers, "It answers no server: none is named."),
        _listed("It takes part in the scenarios with hash", law.scenarios, "It takes part in no scenario."),
        _listed("It trains with the code with hash", law.code, "It trains with no code: none is named."),
        *_packages(law),
        *_bases(law),
        *(_budget(law, name) for name in law.budgets),
        "No other data set is trained on.",
        *(
            line
            for name, source in law.tables.items()
            for line in [_table(name, source), *_person(law, name, source), *_held_out(name, source)]
        ),
        *_disjoint(law),
        f"Every release is by {', '.join(law.mechanisms)}, with noise of at least {down(law.least_noise_multiplier)}"
        f" times the clip, and a clip of at most {up(law.largest_clip)}.",
        _noise(law),
        f"It takes part only where at least {counted(law.smallest_cohort, 'silo')}"
        f" {one_or_more(law.smallest_cohort, 'is', 'are')} asked in a round and at least {law.min_silos}"
        f" {one_or_more(law.min_silos, 'is', 'are')} in a sum, of at most {law.largest_roster} in the federation."
        + ("" if law.encryption.secure_aggregation == "on" else " Unmasked, that is the scenario's word alone."),
        hidden,
    ]
    if law.encryption.secure_aggregation == "on":
        policy = aggregation_of(law)
        said.append(
            f"No sum is opened whose weights are worth fewer than {law.least_effective_silos:.10g} equal silos, nor one"
            f" in which, less any {policy.colluding} silos that work with the server, one update could outweigh the"
            " others by the public weights, batches and steps. Noise of every silo is at least a level of the"
            " quantiser."
        )
        said.append(
            f"That holds as long as no more than {policy.colluding} of the silos work with the server (above"
            f" {COMPLETE_UP_TO} silos, but for a probability of 2^-{policy.secrecy_bits}); at least"
            f" {law.smallest_threshold} silos are needed to bring a secret back."
        )
        if law.encryption.consistency == "quorum":
            said.append("It does NOT hold against a server that shows silos different lists.")
    said.append(_figures(law))
    said.append("It works at any hour." if law.hours is None else f"It joins and trains {hours_told(law.hours)}.")
    return said


def _figures(law: SiloFile) -> str:
    """Say which figures of records leave: none, or noised sums that a job besides training may be asked for."""
    if "gaussian" in law.mechanisms:
        return (
            "No metric leaves: no loss, no count of records but with noise, charged as a release, and no text of an"
            " error."
        )
    return "No metric leaves: no loss, no count of records, no text of an error."


def _packages(law: SiloFile) -> list[str]:
    """Say whose code it runs besides its own."""
    if not law.packages:
        return []
    listed = " and ".join(f"{name} {version}" for name, version in law.packages.items())
    return [
        f"A scenario may name code of {listed}, as installed here: it runs with all the rights of this silo, and what"
        " is claimed of a run holds for code that is not written to cheat. Every file of it is in the hash of the"
        " code, but for its installer's notes and scripts."
    ]


def _bases(law: SiloFile) -> list[str]:
    """Say on which models, trained before, it trains, and where they lie."""
    return [
        f"It trains on the base with hash {sha256}, from the folder {folder} of this machine: of it all files that are"
        " read have to be those of that hash. The base never leaves, and what it was trained on before is no part of"
        " any claim."
        for sha256, folder in law.bases.items()
    ]


def _noise(law: SiloFile) -> str:
    """Say where noise comes from."""
    if "seeded-unsafe" in law.noise_sources:
        return "Noise may be SEEDED: whoever knows the seed can remove it, and no epsilon protects anybody."
    if EXPERIMENT in law.noise_sources:
        return "Noise may be an EXPERIMENT's, from a seed: this silo is simulated, and no epsilon protects anybody."
    if law.noise_sources:
        return "Noise is drawn from the operating system."
    return "It trains nothing: no source of noise is named."


def _budget(law: SiloFile, name: str) -> str:
    """Say what may be spent on a data set, or on several together."""
    budget = law.budgets[name]
    scope = scope_of(name, budget)
    records = f"{counted(scope.max_records, 'record')} {one_or_more(scope.max_records, 'is', 'are')}"
    whose = {
        "record": "one record",
        "person": f"one person, of whom at most {records} used",
        "client": f"this whole silo, of which at most {records} used",
    }[scope.unit]
    whole = "A run that it does not pay to its end is refused"
    if budget.partial_runs:
        whole = "A run that it does not pay to its end is taken part in for as long as it does"
    order = "an order fixed with the ledger" if budget.order is None else f"order {scope.order}"
    data = " and ".join(budget.covers or (name,)) + (" together" if len(budget.covers or ()) > 1 else "")
    return (
        f"On {data}, at most epsilon {up(scope.epsilon)} at delta {small(scope.delta)} is ever spent, for the presence"
        f" of {whose}; runs chosen one after the other are held to it by a Rényi filter of {order}. {whole}."
    )


def _table(name: str, source: TableSource) -> str:
    """Say where a data set lies; of a database the query alone, which is what is read."""
    where = {
        "csv": f"the CSV file {source.csv}",
        "parquet": f"the Parquet file {source.parquet}",
        "folder": f"the CSV and Parquet files in {source.folder}",
        "files": f"the files in {source.files}, which are images, IDX files, JSON lines or a saved data set, as the"
        " scenario says",
        "url": f"a {source.database} database, by an account that can only read: {source.query}",
    }
    form = ""
    if not source.is_plain:
        form = f", as CSV separated by {source.separator!r}, with decimal {source.decimal!r}, in {source.encoding}"
        if source.missing_values:
            form += f", where {', '.join(map(repr, source.missing_values))} stands for a missing value"
    if source.tokenizer is not None:
        form += f", its text by the tokenizer in {source.tokenizer}, of which a scenario says each byte by its hash"
    return f"{name} is read from {next(where[key] for key in where if getattr(source, key) is not None)}{form}."


def _person(law: SiloFile, name: str, source: TableSource) -> list[str]:
    """Say when two records of a table are one person's, where that matters or is said."""
    budget = law.budget_of(name)
    if source.person is None and (budget is None or budget.unit != "person"):
        return []
    column, form = "the column that the scenario names", "text"
    if source.person is not None:
        column, form = f"column {source.person.column!r}", source.person.form
    return [f"Whose record of {name} it is, is said by {column}: {_FORMS[form]}."]


def _held_out(name: str, source: TableSource) -> list[str]:
    """Say what becomes of the persons whom the silo holds out."""
    if source.held_out is None:
        return []
    if source.person is None:
        return [
            f"Of {name}, a share of {source.held_out:.10g} of its pictures is HELD OUT, chosen by what each of them"
            " holds and not by whose it is: one person may have some there and others that train. They do not train,"
            " and are handed to the server's operator as they are. Figures measured on them leave without noise, and no"
            f" epsilon covers them. Once they are handed over, {name} is read with no smaller share, and by no column"
            " of ids."
        ]
    return [
        f"Of {name}, a share of {source.held_out:.10g} of its persons is HELD OUT: their records do not train, and are"
        " handed to the server's operator as they are. Figures measured on them leave without noise, and no epsilon"
        f" covers these persons. Once they are handed over, {name} is read by no other column or form of ids than today"
        " and with no smaller share."
    ]


def _disjoint(law: SiloFile) -> list[str]:
    """Say what rests on the operator's word."""
    names = [name for name, source in law.tables.items() if source.disjoint]
    if not names:
        return []
    return [
        f"That the queries of {', '.join(names)} give nobody's record whom another of them of the same database gives"
        " is this silo's own word: no program checks it, and their budgets are counted apart."
    ]


def _listed(words: str, values: tuple[str, ...], none: str) -> str:
    return f"{words} {' or '.join(f'{value[:16]}...' for value in values)}." if values else none
