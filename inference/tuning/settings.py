"""What is left of a search: a YAML file that the fit commands take."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import optuna
import yaml

from inference.commands import version
from inference.numerals import metric
from inference.options import DataOptions, Options
from inference.tuning.options import MACHINE_KEYS, RUN_KEYS, TuneOptions
from inference.tuning.space import dimensions, settings
from inference.tuning.study import counts, ranked
from pyro_cvae.data.splits import Split
from pyro_cvae.whole import whole_file


def keeps_validation(split: Split, options: Options) -> bool:
    """Whether a fit with the settings found needs the validation part again; otherwise it takes all training ratings.

    At one training item a user the part was made of test pairs, whose users the headline mean leaves out; and early
    stopping needs one to look at.
    """
    return split.tuning_users is not None or options.fit.patience > 0 or options.data.validation_file is not None


def write_settings(
    path: Path, study: optuna.Study, tune: TuneOptions, base: Options, split: Split, command: str
) -> None:
    """Write the best settings for ``--config``: what was searched, and what differs from the defaults.

    The comments say how they were found. The file is replaced whole or not at all.
    """
    best, identity = ranked(study)[0], study.user_attrs["identity"]
    space = dimensions(tune.search, base)
    options = settings(best.params, space, base)
    keep = keeps_validation(split, options)
    default, searched = Options.of(base.method_name).to_dict(), {one.name for one in space}
    left_out = (*RUN_KEYS, *MACHINE_KEYS, *(() if keep else ("validation",)))
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.to_dict().items()
        if (name in searched or value != default[name]) and name not in left_out
    }
    recalls = ", ".join(f"{name} {metric(name, value)}" for name, value in best.user_attrs["recalls"].items())
    comments = (
        f"Found by {command}",
        f"{recalls} on the validation part ({_validation_words(base.data)}).",
        f"The best of trials: {counts(study)}; it is number {best.number}.",
        f"Fit with {fit_command(tune, path)}: " + ("with" if keep else "without") + " the validation part held back.",
        f"pyro-cvae {version()}; data {identity['data fingerprint']}; split {identity['split fingerprint']}.",
    )
    text = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    for name, value in values.items():  # one line each, lists among them
        flow = None if isinstance(value, list | dict) else False
        text += yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=flow, width=1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8")


def fit_command(tune: TuneOptions, path: Path) -> str:
    """The command that fits with the settings in the file ``path``."""
    return f"python -m inference.{tune.method} --config {shlex.quote(os.fspath(path))}"


def _validation_words(data: DataOptions) -> str:
    """Where the validation part is from."""
    if data.validation_file is not None:
        return f"--validation-file {data.validation_file}"
    return f"--validation {data.validation:g}"
