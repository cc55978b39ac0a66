"""How rankings are measured, as options say it; see :mod:`pyro_cvae.metrics`. No heavy import here."""

from typing import Literal

Protocol = Literal["corrected", "paper"]
"""Training items are left out of the ranking, or stay in it and count as hits."""
CUTOFFS = (50, 100, 150, 200, 250, 300)
"""The M of recall@M."""
