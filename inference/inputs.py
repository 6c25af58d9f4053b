"""A job's files, as passed to an engine."""

from __future__ import annotations

from pathlib import Path

from errors import EngineFailed
from inference.engine import Inputs
from jobqueue import intake, spool
from jobqueue.job import Job


def inputs_of(job: Job, data_dir: Path) -> Inputs:
    """The files that were fetched for a job. Raises EngineFailed if one is gone."""
    files = {}
    for field in intake.LINKS[job.engine]:
        path = spool.input_file(data_dir, job.id, field)
        if not path.is_file():
            raise EngineFailed(f"{field}: the downloaded file is missing on this machine")
        files[field.removesuffix("_url")] = path
    return Inputs(fields=job.inputs, **files)
