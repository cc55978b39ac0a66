"""Opening what a fit left in a run folder: ``inference.load``."""

from __future__ import annotations

import os
from dataclasses import replace

from inference import stored
from inference.fitted import Fit
from pyro_cvae.data.text import consent
from pyro_cvae.runs import Run, open_run
from pyro_cvae.trust import Trust


def load(path: str | os.PathLike[str] | Run, *, trust: Trust = ()) -> Fit:
    """Open a run folder: everything that :func:`fit` returned.

    A class outside of the package that the run names is imported only if it is in ``trust``, its path or a list of
    paths; see docs/security.md. Raises InputError, naming the file, if one is damaged or makes no sense.
    """
    run = path if isinstance(path, Run) else open_run(path, trust)
    consent(run.trust)  # of tokenizers, which are imported when there are new texts
    options, dataset, split = stored.stored_options(run), run.dataset(), run.split()
    stored.check_split(run, dataset, split)
    options = stored.for_data(run, options, dataset)
    tensors, metrics = run.tensors("posterior"), run.metrics()
    posterior = stored.stored_posterior(run, options, dataset, tensors)
    model = stored.stored_model(run, options, dataset, tensors)
    posterior = replace(posterior, tells_users=model.tells_users())
    scalings = stored.stored_scalings(run, options, dataset, model)
    history = stored.stored_history(run, metrics)
    return Fit(posterior, dataset, split, options, history, metrics, model, scalings, run.path)
