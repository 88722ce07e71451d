"""An entry for a registry of deployments of differential privacy, in YAML, made from a report.

Dwork, Kohli and Mulligan 2019 ("Differential privacy in practice: expose your epsilons!", section 5) propose that such
deployments are published where others can compare them. The keys and their order are those of the Differential Privacy
Deployments Registry, which OpenDP and others began in 2025; what no run can say of itself, a person fills in: it is
`null` here, and what it is about stands in `to_complete`.

Does NOT say more than the report: a registry's reader is pointed to that for figures by silo.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from scenarios.report.document import Report
from scenarios.runs import words

NAME: Final = "registry.yaml"
_STATUS: Final = "Draft"
# Only a person knows these.
TO_COMPLETE: Final = (
    "deployment.product.data_curators", "deployment.product.data_product_region",
    "deployment.product.data_product_sector", "deployment.product.intended_use",
    "deployment.product.publication_date", "deployment.implementation.pre_processing_eda_hyperparameter_tuning",
)  # fmt: skip


def entry(report: Report, *, before: bool = False) -> dict[str, Any]:
    """Return the entry, as a registry has it.

    Args:
        report: What it is made from.
        before: Whether to speak of other runs where there are none, as entries from before do.
    """
    return {
        "url_slug": f"{report.run.scenario}-fedmodel",
        "status": _STATUS,
        "tier": None,
        "deployment": {
            "product": _product(report),
            "dp_flavor": _flavor(report),
            "privacy_loss": _privacy_loss(report, before=before),
            "model": _model(report),
            "accounting": {
                "post_processing": "Averaging of updates and everything after it: post-processing costs nothing.",
                "composition": report.accounting.composition,
            },
            "implementation": _implementation(report),
            "resources": {
                "sources": f"report.json, signed by {report.integrity.signer}, verified by `fedmodel report verify`",
                "registry_authors": [f"fedmodel {report.built.fedmodel}"],
            },
        },
        "to_complete": list(TO_COMPLETE),
    }


def to_yaml(report: Report, *, before: bool = False) -> str:
    """Return the entry as YAML, keys in their fixed order; in the words of entries from before, if asked to."""
    return yaml.safe_dump(entry(report, before=before), sort_keys=False, allow_unicode=False, width=100)


def _product(report: Report) -> dict[str, Any]:
    return {
        "name": report.run.scenario,
        "data_curators": None,
        "intended_use": None,
        "data_product_type": "Machine learning model",
        "data_product_region": None,
        "description": f"{report.run.summary}; {report.run.parameters} parameters, trained by federated learning over"
        f" {len(report.run.silos)} silos",
        "publication_date": None,
        "data_product_sector": None,
    }


def _flavor(report: Report) -> dict[str, Any]:
    names = ", ".join(data.name for data in report.scope.data_sets)
    claimed = report.claim.protects
    return {
        "name": "Approximate DP" if claimed else None,
        "input_metric": f"add or remove one {_unit(report)}",
        "bound_on_input_distance": 1,
        "output_measure": "smoothed max divergence" if claimed else None,
        "bound_on_output_distance": report.claim.epsilon if claimed else None,
        "data_domain": f"each silo's records of {names}",
        "unprotected_quantities": " ".join(report.not_protected.statements),
    }


def _privacy_loss(report: Report, *, before: bool) -> dict[str, Any]:
    claim = report.claim
    parameters = (
        {"epsilon": claim.epsilon, "delta": claim.delta} if claim.protects else dict.fromkeys(("epsilon", "delta"))
    )
    return {
        "privacy_unit": {"record": "record-level", "person": "person-level", "client": "client-level"}[claim.unit],
        "privacy_unit_description": f"one {_unit(report)} of one silo, added or removed",
        "privacy_parameters": parameters,
        "privacy_parameters_description": " ".join(
            filter(None, (claim.sentence, claim.early, _in_all(report, before=before)))
        ),
    }


def _in_all(report: Report, *, before: bool) -> str:
    """Say what all runs that the ledgers hold compose to."""
    scope = report.scope
    if report.run.booked:
        return "What else was released of the same records is not known: the run was simulated, and no ledger was kept."
    if report.run.reported:
        return "What other runs the silos' ledgers hold is not known here: no ledger was at hand."
    if not scope.protects:
        why = "nothing is bounded: noise was seeded, or none was added."
        return f"With the other runs that the ledgers hold, {why}" if scope.prior_runs or before else why.capitalize()
    if scope.largest_bound is None:
        return "With the other runs that the ledgers hold, no bound is computed."
    return (
        "With all that the ledgers hold on these data, however plans were chosen and wherever they ended, the largest"
        f" epsilon of a silo is {scope.largest_bound}."
    )


def _model(report: Report) -> dict[str, Any]:
    besides = f", and noised answers of {words.listed(report.run.besides)}" if report.run.besides else ""
    many = report.mechanism.rounds_completed > 1 or bool(besides)
    return {
        "model_name": "Distributed",
        "model_name_description": report.trust.noise_added_by,
        "actors": [f"{party.who}: sees {party.sees}. {party.holds}" for party in report.trust.parties],
        "release_type": "Many releases" if many else "One release",
        "release_type_description": f"the model after each of {report.mechanism.rounds_completed} rounds{besides}",
        "data_source_type": "Static",
        "access_type": "Non-interactive",
    }


def _implementation(report: Report) -> dict[str, Any]:
    mechanism, audit = report.mechanism, report.audit
    tested = "No audit attacked this run." if audit is None else f"An audit attacked this run: {audit.verdict}."
    return {
        "pre_processing_eda_hyperparameter_tuning": None,
        "mechanisms": [mechanism.description, mechanism.sensitivity, mechanism.sampling, mechanism.side_channels],
        "library": f"fedmodel {report.built.fedmodel}, code {report.integrity.code_hash}",
        "justification": tested,
    }


def _unit(report: Report) -> str:
    claim = report.claim
    return claim.unit if claim.unit == "record" else f"{claim.unit} with at most {claim.max_records} records"
