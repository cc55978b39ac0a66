"""Command lines made from the option dataclasses: flags, YAML files, plug-ins. The only place that knows jsonargparse.

A field is one flag (``train_per_user`` is ``--train-per-user``), one key of a YAML file (``--config FILE``) and one
entry of ``--help``, taken from the class's docstring. Flags win over the file, the file over a preset of the package
(``--preset NAME``), that over the defaults. Nothing heavy is imported, so that ``--help`` and a wrong option answer at
once; torch is, only when a class path is named.
"""

from inference.commands.files import on_top, read_preset
from inference.commands.options import option_of
from inference.commands.parsing import parse, version
from inference.commands.plugins import load_class
from inference.commands.starting import ANEW, check_named, paths_in, stored_in, taken_over
from inference.commands.values import read_value, typed

__all__ = [
    "ANEW",
    "check_named",
    "load_class",
    "on_top",
    "option_of",
    "parse",
    "paths_in",
    "read_preset",
    "read_value",
    "stored_in",
    "taken_over",
    "typed",
    "version",
]
