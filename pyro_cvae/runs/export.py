"""A copy of a run that may be given away: nothing about single users is in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pyro_cvae.runs.disk import remove, unlock, write_file
from pyro_cvae.runs.reader import Run, open_run
from pyro_cvae.runs.writer import RunWriter


def export_without_users(run: Run | str | os.PathLike[str], out: str | os.PathLike[str]) -> Run:
    """Copy a run without anything about single users: no ``u_*`` tensors, user ids, ratings or test pairs.

    What stays: config (with ``without_users``), posterior of items and networks, history, metrics, and ids, titles and
    content of the items (:meth:`Run.items`).

    Raises:
        InputError: ``run`` cannot be opened, or ``out`` exists.
        MachineError: The disk is full.
    """
    if not isinstance(run, Run):
        run = open_run(run)
    items = run.items() if any(file.startswith("data/dataset/") for file in run.files) else None
    writer = RunWriter.start(out, run.config | {"without_users": True}, items)
    try:
        tensors = {name: tensor for name, tensor in run.tensors().items() if not name.startswith("u_")}
        writer.save_tensors("posterior", tensors)
        for name in ("history.csv", "metrics.json"):
            if name in run.files:
                _copy(run.path / name, writer.path / name)
        return open_run(writer.finish())
    except BaseException:
        remove(writer.path)
        unlock(writer.path)
        raise


def _copy(source: Path, target: Path) -> None:
    write_file(target, lambda temporary: shutil.copyfile(source, temporary))
