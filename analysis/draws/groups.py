"""What the groups of an exported posterior hold, and the dimensions of their variables."""

from __future__ import annotations

GROUPS = {
    "posterior": "u (user), v, v_dagger and z (item), by factor; score (pair), u.v and biases; with biases "
    "also user_bias and item_bias, which has the global mean in it",
    "prior": "the same before any data: rotation leaves it as it is, so only norms and scores mean something",
    "posterior_predictive": "R of the cells that the fit saw (cell), given their confidences",
    "prior_predictive": "the same from the prior",
    "log_likelihood": "R (cell), log p(R_ij | u_i, v_j); where asked for R_user (user), log p(R_i | u_i, V), all items",
    "observed_data": "R (cell) as the fit saw it: a cell that is not stored is 0",
    "constant_data": "user, item, part of pairs; confidence of cells, if they are stored; training counts; precisions, "
    "of which tau is that of the noise of explicit ratings, and the prior mean of the items' biases",
    "predictions": "R of pairs of the test part (held_out), given the confidence that a stored rating has",
    "predictions_constant_data": "R (held_out), the rating that came, its confidence, user and item",
    "sample_stats": "lp, the log joint density of each draw: of MCMC only",
    "history": "the objective and its named terms by epoch: they belong to a fit, not to a draw, as sample_stats must",
}
"""What each group holds; in brackets the dimensions beside chain and draw."""

DIMS: dict[str, list[str]] = {
    "u": ["user", "factor"],
    "v": ["item", "factor"],
    "v_dagger": ["item", "factor"],
    "z": ["item", "factor"],
    "score": ["pair"],
    "user_bias": ["user"],
    "item_bias": ["item"],
    "R": ["cell"],
    "R_user": ["user"],
    "confidence": ["cell"],
    "stored": ["cell"],
    "n_ratings_of_user": ["user"],
    "n_ratings_of_item": ["item"],
    "item_group": ["item"],
    "title": ["item"],
    **{name: [name.rpartition("_")[0]] for name in ("pair_user", "pair_item", "pair_part", "cell_user", "cell_item")},
    **{name: ["held_out"] for name in ("held_out_user", "held_out_item")},
}
"""Dimensions of each variable beside chain and draw; of the groups of predictions R and its confidence are held out."""
