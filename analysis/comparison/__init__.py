"""Fits of one data set and split side by side: metrics, objectives, spread and stability of lists."""
