"""The search for settings behind ``python -m inference.tune``: its space, its trials, and the file they end in."""
