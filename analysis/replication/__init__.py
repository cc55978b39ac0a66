"""The library behind ``python -m analysis.paper``: the paper's figures and table, computed again, and its sentences."""
