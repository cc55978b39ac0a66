"""The library behind ``python -m analysis.sbc``: simulation-based calibration of the sampler."""
