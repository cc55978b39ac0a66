"""What everybody speaks of: data sets, splits, metrics, errors and run folders."""
