"""Are the uncertainties right? What the command :mod:`analysis.calibration` asks, and how it is told."""
