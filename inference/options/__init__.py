"""Options of the fit commands: frozen dataclasses, checked on construction; the command lines are made from them.

Every field is one flag (``train_per_user`` is ``--train-per-user``), one key of a YAML file and one keyword of
:func:`inference.fit`. No heavy import here: ``--help`` must answer at once.
"""

from inference.options.data import DataOptions
from inference.options.fit import FitOptions
from inference.options.methods import METHODS, CoordinateOptions, MCMCOptions, SVIOptions
from inference.options.model import ModelOptions
from inference.options.run import RunOptions
from inference.options.whole import Options

__all__ = [
    "METHODS",
    "CoordinateOptions",
    "DataOptions",
    "FitOptions",
    "MCMCOptions",
    "ModelOptions",
    "Options",
    "RunOptions",
    "SVIOptions",
]
