"""Kinds of what is said of a fit by a word: a ``Literal`` each; ``typing.get_args`` gives its words."""

from typing import Literal

TunedMethod = Literal["svi", "coordinate"]
"""Inference modules whose settings can be searched."""
Method = Literal[TunedMethod, "mcmc"]
"""Inference modules."""
Mode = Literal["map", "bayes"]
"""Point estimates of u and v, or their posteriors."""
Guide = Literal["mean-field", "structured"]
"""The posterior of bayes: q(u) q(v) q(z), or q(v|z) in it."""
PosteriorKind = Literal["point", "full", "draws", Guide]
"""What is known of u and v after a fit; see :class:`inference.posterior.Posterior`."""
Objective = Literal["map_objective", "elbo", "log_joint"]
"""What is maximised, or of draws their log joint density."""
Hide = Literal["auto", "random", "latest", "last", "items"]
"""Which training pairs --tune hides."""
Biases = Literal["auto", "on", "off"]
"""A global mean and biases in the scores; auto is the rating likelihood's own choice."""
Dtype = Literal["float32", "float64"]
"""Floating-point types."""
Kernel = Literal["auto", "torch", "numba"]
"""What solves the rows of a half-step; auto takes numba's compiled kernels where numba is installed, else torch."""
Gather = Literal["all", "needed"]
"""The users that a worker gets for the update of its items: of all workers, or those alone that its cells meet."""
Ranking = Literal["mean", "thompson", "ucb"]
"""What a list is ordered by: the mean score, a draw of it, or the mean and some standard deviations."""
Index = Literal["exact", "faiss"]
"""How the best items of many are found: all are looked at, or those near in an index of faiss."""
Format = Literal["table", "csv", "json"]
"""How an answer is printed."""
Export = Literal["parquet", "npz", "faiss"]
"""Files that the factors of a fit are written as."""
