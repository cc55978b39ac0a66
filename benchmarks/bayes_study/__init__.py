"""The library behind ``python -m benchmarks.when_bayes``: one file a part, the rows kept, intervals and the figure."""
