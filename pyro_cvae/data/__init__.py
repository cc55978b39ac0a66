"""Data: stored pairs, item content, data sets with external ids, splits, readers and simulators.

``registry.load_dataset`` turns a name or a path into a :class:`~pyro_cvae.data.dataset.Dataset`;
``splits.make_split`` turns that into a :class:`~pyro_cvae.data.splits.Split`.
"""
