"""A silo's job for one request, put together: what the silo is, what is asked, and what looks on.

This is the one place at a silo that makes a job of a request, and knows whether a run is audited.
"""

from __future__ import annotations

from clients.probing import observers
from clients.silo import Silo
from fedmodel.learning.jobs import Answering, Question, Site, job_named
from fedmodel.wire import TrainRequest


def job_at(silo: Silo, request: TrainRequest) -> tuple[Answering, Question]:
    """Return the job that answers a request, and its question.

    Raises:
        ConfigError: When there is no job of that name.
    """
    site = Site(silo.name, silo.scenario, silo.device, silo.simulated, silo.processes)
    job: Answering = job_named(request.job).answering(site, observers(silo, request))
    return job, Question(request.round_number, request.model_P)
