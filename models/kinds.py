"""Kinds of what is said of a model by a word: a ``Literal`` each; ``typing.get_args`` gives its words."""

from typing import Literal

Activation = Literal["sigmoid", "tanh", "relu", "softplus"]
"""Of hidden layers."""
EncoderInput = Literal["tfidf", "same"]
"""What an encoder reads of words: weighted ones, or what the likelihood is of."""
Parametrization = Literal["centred", "non-centred"]
"""v drawn around its mean m, or v - m around 0."""
StartKind = Literal["whitened", "svd"]
"""How networks start from the data; see :mod:`models.networks.mlp_pair`."""
Unrated = Literal["masked", "zeros"]
"""Items without a training rating: no column, or one of zeros."""
Cold = Literal["auto", "unchosen", "new"]
"""Items without a training rating: there and not chosen, or such that nobody could have chosen; or as the split has."""
