"""What a posterior says: ArviZ data, calibration, comparison, figures, reports."""

import pyro_cvae  # noqa: F401  # first of all, since it takes run folders off the path
