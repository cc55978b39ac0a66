"""The epochs of a fit where people keep their logs: ``--log jsonl tensorboard mlflow``.

Each epoch is told as it passes: the named parts of the objective, the validation metric and the diagnostics, under the
names of ``history.csv``. A fit that is resumed goes on with its log, each epoch once. A log that cannot be written any
more is left with a line of warning, and the fit goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inference.options import Options
from inference.options.run import logs_in
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.runs.disk import write_file

log = logging.getLogger("pyro_cvae")

EXPERIMENT = "pyro-cvae"
"""The experiment of MLflow where the environment names none."""
LONGEST = 500
"""Characters of an option's value that MLflow is told."""
Row = Mapping[str, Any]


class Log(ABC):
    """One log. It is made before a run folder is, and ``begin`` comes when there is one."""

    @abstractmethod
    def begin(self, folder: Path | None, rows: Sequence[Row]) -> None:
        """Open it, with the rows of the epochs that a resumed fit has behind it."""

    @abstractmethod
    def tell(self, row: Row) -> None:
        """An epoch."""

    @abstractmethod
    def end(self, metrics: Row | None, stopped: bool) -> None:
        """Close it: with the metrics of a fit that is done, or none; ``stopped`` by a person."""


class JsonLines(Log):
    """A JSON object a line, in ``log.jsonl`` of the run folder or in a file of its own.

    Raises InputError where that exists and may not be replaced.
    """

    def __init__(self, path: str | None, resumed: bool, overwrite: bool) -> None:
        self.path = None if path is None else Path(path).absolute()
        if self.path is not None and os.path.lexists(self.path):
            may = _is_log(self.path) and (resumed or overwrite)
            if not may:
                remedy = "choose another name, or replace a log with --overwrite"
                raise InputError("exists, and --log would replace it", remedy, path=self.path)

    def begin(self, folder: Path | None, rows: Sequence[Row]) -> None:
        """The rows behind are written as they were, whatever a killed fit has left."""
        path = self.path if self.path is not None else _within(folder) / "log.jsonl"
        text = "".join(_line(row) for row in rows)
        write_file(path, lambda temporary: temporary.write_text(text, encoding="ascii"))
        self.path = path

    def tell(self, row: Row) -> None:
        """A line, which is there at once."""
        with open(_within(self.path), "a", encoding="ascii") as stream:
            stream.write(_line(row))

    def end(self, metrics: Row | None, stopped: bool) -> None:
        """Nothing is left to do."""


class TensorBoard(Log):
    """Scalars by epoch in ``tensorboard/`` of the run folder, or in a folder of its own.

    Raises MachineError without the extra ``tensorboard``, InputError where there are events of another fit.
    """

    def __init__(self, path: str | None, resumed: bool, overwrite: bool) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise _missing("tensorboard", error) from None
        self._event, self._session, self._summary, self._make = Event, SessionLog, Summary, EventFileWriter
        self.path, self._resumed = None if path is None else Path(path).absolute(), resumed
        self._writer: Any = None
        if self.path is not None and _has_events(self.path) and not (resumed or overwrite):
            raise InputError("holds events of another fit", "choose another folder, or --overwrite", path=self.path)

    def begin(self, folder: Path | None, rows: Sequence[Row]) -> None:
        """Events from the first epoch on that is still to come count no more, as TensorBoard has it for a restart."""
        path = self.path if self.path is not None else _within(folder) / "tensorboard"
        before = _has_events(path)
        self._writer = self._make(str(path))
        first = len(rows) + 1 if self._resumed else 1
        if before:
            start = self._session(status=self._session.START)
            self._writer.add_event(self._event(step=first, wall_time=time.time(), session_log=start))
        for row in () if before and self._resumed else rows:
            self.tell(row)

    def tell(self, row: Row) -> None:
        """A scalar for each number."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in _numbers(row).items()]
        summary = self._summary(value=values)
        self._writer.add_event(self._event(step=row["epoch"], wall_time=time.time(), summary=summary))
        self._writer.flush()

    def end(self, metrics: Row | None, stopped: bool) -> None:
        """Close the file of events."""
        if self._writer is not None:
            self._writer.close()


class MLflow(Log):
    """Metrics by epoch, the options and the metrics at the end as a run of MLflow, where its own environment says.

    That is ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the current folder; the experiment is
    ``MLFLOW_EXPERIMENT_NAME`` or :data:`EXPERIMENT`. ``mlflow.json`` in the run folder holds the number of the run.
    MLflow tells its makers of its use unless it is forbidden; it is here, where the environment does not say otherwise.
    Raises MachineError without the extra ``mlflow``, or where the store cannot be reached.
    """

    def __init__(self, options: Options) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            with _quiet():
                from mlflow.entities import Metric, Param
                from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("mlflow", error) from None
        self._metric, self._param = Metric, Param
        self.options, self._run, self._done = options, "", 0
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
        with self._reached():
            self._client = MlflowClient()
            self._experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._named()

    def _named(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known is not None else self._client.create_experiment(name)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            with _quiet():
                yield
        except Exception as error:  # of the store's own libraries too
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MachineError(f"MLflow: {reason}", "check MLFLOW_TRACKING_URI, or leave --log mlflow out") from error

    def begin(self, folder: Path | None, rows: Sequence[Row]) -> None:
        """The run of a fit that is resumed is gone on with: epochs that it has are not told again."""
        note = None if folder is None else folder / "mlflow.json"
        name = "" if self.options.run.out is None else Path(self.options.run.out).name
        with self._reached():
            if note is not None and note.is_file():
                self._run = json.loads(note.read_text(encoding="ascii"))["run_id"]
                self._client.update_run(self._run, "RUNNING")
                told = self._client.get_metric_history(self._run, self.options.objective)
                self._done = max((one.step for one in told), default=0)
            else:
                self._run = self._client.create_run(self._experiment, run_name=name or None).info.run_id
                params = [
                    self._param(k, str(v)[:LONGEST]) for k, v in self.options.to_dict().items() if v not in (None, "")
                ]
                self._client.log_batch(self._run, params=params)
                if note is not None:
                    text = json.dumps({"run_id": self._run}) + "\n"
                    write_file(note, lambda temporary: temporary.write_text(text, encoding="ascii"))
            for row in rows:
                self.tell(row)

    def tell(self, row: Row) -> None:
        """A metric for each number, at this epoch."""
        if row["epoch"] > self._done:
            self._told(_numbers(row), row["epoch"])

    def _told(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        with _quiet():
            metrics = [self._metric(name, value, now, step) for name, value in numbers.items()]
            self._client.log_batch(self._run, metrics=metrics)

    def end(self, metrics: Row | None, stopped: bool) -> None:
        """The metrics of the fit (recall@50 is recall_at_50, a name that MLflow allows), and how it has ended."""
        if not self._run:
            return
        if metrics is not None:
            last = {name.replace("@", "_at_"): value for name, value in _numbers(metrics).items()}
            self._told(last, metrics["best_epoch"])
        with _quiet():
            self._client.set_terminated(
                self._run, "FINISHED" if metrics is not None else "KILLED" if stopped else "FAILED"
            )


def logs_of(options: Options) -> list[Log]:
    """The logs that ``--log`` names, to be opened; what cannot be written is refused before there is a run folder."""
    run, found = options.run, list[Log]()
    for kind, path in logs_in(run.log).items():
        if path is None and kind != "mlflow" and run.out is None:
            raise InputError(f"--log {kind} goes into the run folder, and there is none", f"give out, or {kind}=PATH")
        if kind == "mlflow":
            found.append(MLflow(options))
        else:
            found.append((JsonLines if kind == "jsonl" else TensorBoard)(path, run.resume, run.overwrite))
    return found


@contextmanager
def telling(
    logs: Sequence[Log], folder: Path | None, rows: Sequence[Row]
) -> Iterator[tuple[Callable[[Row], None], Callable[[Row], None]]]:
    """Gives two functions: what an epoch is told by, and what the metrics of the fit are told by at its end.

    ``folder`` is the run folder in progress, ``rows`` what a resumed fit has behind it.
    """
    left, found = list(logs), list[Row]()
    for one in left:
        one.begin(folder, rows)

    def attempt(one: Log, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            log.warning("--log %s: %s; the fit goes on without it", type(one).__name__, reason)
            if one in left:
                left.remove(one)

    def on_row(row: Row) -> None:
        for one in list(left):
            attempt(one, lambda one=one: one.tell(row))  # type: ignore[misc]

    stopped = False
    try:
        yield on_row, found.append
    except (KeyboardInterrupt, SystemExit):
        stopped = True
        raise
    finally:
        for one in logs:
            attempt(one, lambda one=one: one.end(found[-1] if found else None, stopped))  # type: ignore[misc]


def _numbers(row: Row) -> dict[str, float]:
    """The finite numbers of a row, but for its epoch."""
    numbers = {n: float(v) for n, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if name != "epoch" and math.isfinite(value)}


def _line(row: Row) -> str:
    plain = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(plain) + "\n"


def _is_log(path: Path) -> bool:
    """Whether a file is empty, or begins as a log of ours does."""
    try:
        with open(path, "rb") as stream:
            first = stream.readline(2**20)
        return not first or json.loads(first)["epoch"] == 1
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _has_events(path: Path) -> bool:
    return path.is_dir() and any(".tfevents." in entry.name for entry in path.iterdir())


def _within(folder: Path | None) -> Path:
    assert folder is not None
    return folder


def _missing(extra: str, error: ImportError) -> MachineError:
    return MachineError(
        f"--log {extra} needs the extra {extra} ({error})", f"pip install -c constraints.txt -e '.[{extra}]'"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's warnings about its own dependencies are not the caller's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
