"""The study as a whole: data, fits, and everything that is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from analysis.replication.contents import label_of, load_study
from analysis.replication.figures import draw
from analysis.replication.jobs import Job, jobs_of
from analysis.replication.methods import tell_missing
from analysis.replication.options import PARTS, PaperOptions
from analysis.replication.qualitative import as_lines, as_markdown, examples
from analysis.replication.running import run
from analysis.replication.store import Store
from analysis.replication.summary import Results, differences_of, table_of
from analysis.replication.verdicts import verdicts_on
from analysis.replication.writing import (
    difference_sheets,
    folded,
    protocol_lines,
    sheets,
    verdict_sheet,
    verdicts_page,
    write_text,
)
from inference.printing import Sheet, write_frame
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Made:
    """What was made: what is printed, the files, and why some fits are missing."""

    shown: list[Sheet | str]
    files: list[Path]
    failed: list[str]


def study(options: PaperOptions) -> Made:
    """Make the fits that are missing, then tables, figures and verdicts of all that are there."""
    tell_missing(options.chosen, options.methods)
    loaded = {data: load_study(data) for data in options.data}
    datasets = {data: dataset for data, (dataset, _) in loaded.items()}
    labels = _labels(datasets)
    fingerprints = {data: dataset.fingerprint() for data, dataset in datasets.items()}
    by_part = {part: jobs_of(options, part, fingerprints) for part in options.chosen}
    store = Store(options.out)
    store.folder.mkdir(parents=True, exist_ok=True)
    failed = run(options, [job for jobs in by_part.values() for job in jobs], datasets, store)
    about = protocol_lines(loaded.values(), {part: options.n_splits(part) for part in by_part})
    shown: list[Sheet | str] = [*folded(about)]
    paths: list[Path] = []
    for part, jobs in by_part.items():
        if part == "table1":
            text, lines = _two_users(jobs, datasets, labels, store)
            shown += folded(lines)
            paths.append(write_text(store.folder / "table1.md", text))
            continue
        results = Results(jobs, store.rows, labels)
        table, differences = (make(results, jobs, labels) for make in (table_of, differences_of))
        if len(table):
            shown += sheets(part, table) + difference_sheets(part, differences)
            for name, frame in ((f"{part}.csv", table), (f"{part}-differences.csv", differences)):
                if len(frame):
                    write_frame(frame, store.folder / name)
                    paths.append(store.folder / name)
            paths += draw(part, table, store.folder)
    verdicts = verdicts_on(Results(_all_jobs(options, fingerprints, store), store.rows, labels))
    measured = [one for one in verdicts if one.judgement != "not measured"]
    if measured:
        shown += ["\nThe paper's sentences by both protocols; the numbers are in verdicts.md", verdict_sheet(measured)]
    if len(measured) < len(verdicts):
        shown.append("\nOther sentences are not measured yet: the fits that they speak of are not there.")
    paths.append(write_text(store.folder / "verdicts.md", verdicts_page(verdicts, about)))
    return Made(shown, paths, failed)


def _all_jobs(options: PaperOptions, fingerprints: dict[str, str], store: Store) -> list[Job]:
    """Every fit that verdicts may count, those of other calls too."""
    n_splits = 1 + max((int(row["seed"]) for row in store.rows.values()), default=0)
    whole = replace(options, parts=("all",), methods=(), splits=n_splits)
    return [job for part in PARTS for job in jobs_of(whole, part, fingerprints)]


def _labels(datasets: dict[str, Dataset]) -> dict[str, str]:
    """The names of data sets in tables and files; InputError where two are the same."""
    labels = {data: label_of(dataset) for data, dataset in datasets.items()}
    if len(set(labels.values())) < len(labels):
        raise InputError(f"two data sets are called {' and '.join(labels.values())}", "give them apart, each its --out")
    return labels


def _two_users(
    jobs: list[Job], datasets: dict[str, Dataset], labels: dict[str, str], store: Store
) -> tuple[str, list[str]]:
    """Table 1 on every data set on which one of its methods was fitted, in Markdown and in lines."""
    texts, lines = ["# Two users"], list[str]()
    for data, dataset in datasets.items():
        own = [job for job in jobs if job.data == data]
        lists = {job.method.label: found for job in own if (found := store.lists(job.key)) is not None}
        if not lists:
            texts.append(f"## {labels[data]}\n\nNo fit of this table is there.\n")
            continue
        chosen = examples(dataset, per_user(dataset, own[0].per_user, own[0].seed), lists)
        texts.append(as_markdown(labels[data], chosen))
        lines += as_lines(labels[data], chosen)
    return "\n\n".join(texts), lines
