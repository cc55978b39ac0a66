"""The library behind ``python -m analysis.bandit``: rankings in a feedback loop with known truth."""
