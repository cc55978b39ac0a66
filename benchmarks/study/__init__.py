"""What the benchmarks and studies share: arguments, threads, splits and settings, turns, paired errors, tables."""
