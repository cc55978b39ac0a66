"""The run folder: what a fit leaves behind, and what everything else reads.

A fit in progress lives in ``<out>.partial/``; ``<out>/`` appears only when it is complete::

    config.json             schema version, every option, package versions, commit, fingerprints of data and split
    data/dataset, data/split    the data themselves, so that the folder needs nothing else
    posterior.safetensors   and other tensors by name
    history.csv             a row an epoch
    metrics.json            and other JSON by name
    manifest.json           SHA-256 and size of every file above; written last
    writer.json, checkpoint/    while the fit is in progress only

Three rules make it safe. A file is written under a temporary name, synced to disk and renamed: no file under its
final name is ever half written. ``<out>.partial`` becomes ``<out>`` by a rename, so that a process killed at any moment
leaves the old run or the new one, never a mixture. Nothing is pickled: tensors are safetensors, images and vectors of
the items plain ``.npy`` arrays, the rest JSON, CSV and Parquet, so that opening a run cannot execute anything.

Importing the package is light; torch is imported with the first name that needs it.
"""

from typing import TYPE_CHECKING, Any

from pyro_cvae.runs.config import FREE_OPTIONS, run_config
from pyro_cvae.runs.folders import check_runs

if TYPE_CHECKING:
    from pyro_cvae.runs.export import export_without_users
    from pyro_cvae.runs.reader import Run, open_run
    from pyro_cvae.runs.writer import RunWriter

__all__ = ["FREE_OPTIONS", "Run", "RunWriter", "check_runs", "export_without_users", "open_run", "run_config"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyro_cvae.runs.export import export_without_users
    from pyro_cvae.runs.reader import Run, open_run
    from pyro_cvae.runs.writer import RunWriter

    return next(one for one in (Run, RunWriter, export_without_users, open_run) if one.__name__ == name)
