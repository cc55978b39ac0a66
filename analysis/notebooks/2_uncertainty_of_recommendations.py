# ---
# jupyter:
#   jupytext:
#     cell_markers: '"""'
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# How sure is a recommendation?

A posterior has more to say of a score than its mean: how far off it may be, how likely the item belongs to the user's
best ones, what the next choice would teach, and what a text alone is worth. All of it is asked here of one fit with the
structured guide, which passes what a text leaves open on to the item's score.

`PYRO_CVAE_NOTEBOOK_DATA` names other data than the embedded ones.
"""

# %%
# %matplotlib inline
import os
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

import inference
from analysis.calibration import draw_reliability, reliability
from analysis.compare import shrinkage
from analysis.plots import CYCLE, figure
from analysis.posterior import plot_forest, summary, to_datatree
from inference.recommending import add_items, compare_items, fold_in, recommend, similar_items
from pyro_cvae.data.registry import load_dataset

DATA = os.environ.get("PYRO_CVAE_NOTEBOOK_DATA", "simulated")
SETTINGS = {"factors": 10, "epochs": 5} if DATA == "simulated" else {"preset": "best", "factors": 50, "hidden": (50,)}
AUTHORS_SPLIT = Path(DATA) / "cf-train-10-users.dat"
SPLIT = {"train_file": str(AUTHORS_SPLIT)} if AUTHORS_SPLIT.exists() else {"train_per_user": 10}

dataset = load_dataset(DATA)
fit = inference.fit(dataset, method="coordinate", mode="bayes", guide="structured", **SETTINGS, **SPLIT)
train = fit.split.train
fit.posterior.kind

# %% [markdown]
r"""
## One list, with what is known of it

The variance of a score has a closed form,

$$\operatorname{var}(u \cdot v) = m_u' S_v m_u + m_v' S_u m_v + \operatorname{tr}(S_u S_v),$$

where $m$ are means and $S$ covariances. `low` and `high` end the central interval of 90 %. `p_top_10` is the chance
that the item is among the user's ten best, over joint draws of $u$ and of *all* items' $v$: a high score says little
where many others are close behind.
"""

# %%
user = dataset.user_ids[:7][-1]
listed = recommend(fit, [user], top=20, interval=0.9, top_probability=10)
listed.head(5).round(3)

# %%
drawn, ((left, right),) = figure(2, width=5, height=4.5)
left.errorbar(listed["score"], listed["rank"], xerr=listed["high"] - listed["score"], fmt="o", color=CYCLE[0], ms=4)
left.set(xlabel="score u.v, with its interval of 90 %", ylabel="rank", title="Neighbours in a list overlap")
right.barh(listed["rank"], listed["p_top_10"], color=np.where(listed["rank"] <= 10, CYCLE[0], CYCLE[6]))
right.set(xlabel="probability", title="P(among the user's ten best)", xlim=(0, 1))
for axes in (left, right):
    axes.set_yticks([1, 5, 10, 15, 20])
    axes.invert_yaxis()
drawn

# %% [markdown]
"""
## The same as draws, in ArviZ

`to_datatree` gives joint draws of users, items and pairs, named by their ids, to ArviZ or to any other tool. These
draws are independent, so R-hat and effective sample size have nothing to say.
"""

# %%
tree = to_datatree(fit, users=[user], items=listed["item"].head(10), draws=2000, prior=False)
plot_forest(tree, var_names=["score"])
summary(tree, var_names=["score"], kind="stats")

# %% [markdown]
"""
Two scores of a user share the same u, so overlapping intervals do not settle which is the larger. Joint draws do:
"""

# %%
first, *others = listed["item"].head(6)
compare_items(fit, [user], [(first, other) for other in others])

# %% [markdown]
r"""
## What ratings teach, and what a text is worth

The spread of an item's $v$ falls with its training ratings. Without any it is what the text leaves open,
$\sigma(x)^2 + 1/\lambda_v$, which is below the prior. The spread of a *score* need not fall: the more often an item is
chosen, the longer its $v$, and so the more it matters what is not known of the user, $m_v' S_u m_v$. The share of the
item in the variance falls, down to where only the user's own choices can help.
"""

# %%
spread = shrinkage(fit.posterior, train.item_counts)
drawn, ((of_item, of_score, share),) = figure(3, width=4, height=3.4)
of_item.fill_between(spread["ratings"], spread["sd_v_q10"], spread["sd_v_q90"], color=CYCLE[0], alpha=0.2, lw=0)
of_item.plot(spread["ratings"], spread["sd_v"], ".-")
of_item.axhline((1 + 1 / fit.model.lambda_v) ** 0.5, color="#222222", ls="--", lw=1, label="no text, no rating")
of_item.set(title="sd of v (median, 10 to 90 %)", ylim=(0, None))
of_item.legend(loc="lower left")
of_score.fill_between(
    spread["ratings"], spread["sd_score_q10"], spread["sd_score_q90"], color=CYCLE[1], alpha=0.2, lw=0
)
of_score.plot(spread["ratings"], spread["sd_score"], ".-", color=CYCLE[1])
of_score.set(title="sd of u.v, random users", ylim=(0, None))
share.plot(spread["ratings"], 100 * spread["item_share"], ".-", color=CYCLE[2])
share.set(title="the item's share of var(u.v), %", ylim=(0, 100))
for axes in (of_item, of_score, share):
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 1, 10, 100], ["0\n(text only)", "1", "10", "100"])
    axes.set(xlabel="training ratings of the item", xlim=(-0.15, 1.2 * spread["ratings"].max()))
drawn

# %% [markdown]
"""
## Cold items

Nobody chose these in training. Their v is that of their text, which no chooser has pulled towards a taste, so their
scores are lower, and in proportion less sure: against rated items they seldom enter a list.
"""

# %%
cold = dataset.item_ids[train.item_counts == 0]
best_cold = recommend(fit, [user], top=10, candidates=cold, interval=0.9)
drawn, ((axes,),) = figure(width=6.5, height=3.6)
lists = {"all items": (listed.head(10), CYCLE[0], -0.1), "cold items": (best_cold, CYCLE[1], 0.1)}
for label, (table, color, shift) in lists.items():
    half = table["high"] - table["score"]
    axes.errorbar(table["rank"] + shift, table["score"], half, fmt="o", ms=4, color=color, label=f"best of {label}")
axes.set(xlabel="rank", ylabel="score, interval of 90 %", title=f"{len(cold):,} cold items beside the others")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
display(best_cold.head(3).round(3))
drawn

# %% [markdown]
r"""
## A user who was not there

`fold_in` gives the exact $q(u)$ of a new user, given the items. Here the same person comes back with one, two, four,
and at last all choices, where the answer is all but that of the fit. Each choice leaves a little less to be known of
$u$ (left). Scores start near zero, since **all that is not in the list counts as not chosen**, and rise as a taste
shows; their intervals do not narrow, because a longer $u$ makes more of what is unknown of the item, $m_u' S_v m_u$
(right).
"""

# %%
chosen = dataset.item_ids[train.items[train.users == dataset.user_rows([user])[0]]]
sizes = [n for n in (1, 2, 4, 7, 10) if n <= len(chosen)]
names = [f"after {n}" if dataset.user_ids.dtype == object else int(dataset.user_ids.max()) + n for n in sizes]
pairs = [(name, item) for name, n in zip(names, sizes, strict=True) for item in chosen[:n]]
folded = fold_in(fit, *zip(*pairs, strict=True))
rows = folded.dataset.user_rows([*names, user])
sd_u = folded.posterior.covariance("u", rows).diagonal(dim1=-2, dim2=-1).mean(-1).sqrt()
asked = listed["item"].iloc[[0, min(9, len(listed) - 1)]]
mean, sd = folded.posterior.score(rows[:, None], dataset.item_rows(asked))
drawn, ((left, right),) = figure(2, width=5, height=3.6)
left.plot(sizes, sd_u[:-1], "o-")
left.axhline(float(sd_u[-1]), color="#222222", ls="--", lw=1, label="the same user in the fit")
left.set(ylabel="sd of u, root mean square", title="What is not known of the user")
left.set_ylim(0, 1.1 * float(sd_u.max()))
left.legend(loc="lower left")
for column, (item, color) in enumerate(zip(asked, CYCLE, strict=False)):
    at = np.array([*sizes, sizes[-1] + 1.5]) + 0.1 * (2 * column - 1)
    right.errorbar(at, mean[:, column], 1.645 * sd[:, column], fmt="o", ms=4, color=color, label=str(item))
right.set_xticks([*sizes, sizes[-1] + 1.5], [*map(str, sizes), "fit"])
right.axhline(0, color="#222222", lw=0.8)
right.set(ylabel="score, interval of 90 %", title="Two items of the list above")
right.legend(loc="upper left")
for axes in (left, right):
    axes.set_xlabel("choices given")
display(recommend(folded, names[:1], top=3, interval=0.9).round(3))
drawn

# %% [markdown]
"""
## A text that was not there

A new item is its text. Where does it belong, and who might like it?
"""

# %%
text = "telescope comet nebula orbit eclipse" if DATA == "simulated" else "bayesian matrix factorization of ratings"
new = "fresh" if dataset.item_ids.dtype == object else int(dataset.item_ids.max()) + 1
grown = add_items(fit, [new], [text])
display(similar_items(grown, [new], top=5).round(3))
mean, sd = grown.posterior.score(np.arange(dataset.n_users), grown.dataset.item_rows([new]))
best = np.argsort(-mean.numpy())[:5]
pd.DataFrame({"user": dataset.user_ids[best], "score": mean[best], "sd": sd[best]}).round(3)

# %% [markdown]
r"""
## Does it come true?

Intervals speak of $u \cdot v$, which nobody ever sees; what is seen is whether a listed item was chosen. A tenth of the
users turn scores into probabilities, and the others show whether these come true. Grey is what the model itself says,
the chance of a *training* pair, and so no chance of a held-out one. Read the skill too: within a list the score tells
hits from misses only so well. Coverage of the intervals, where the truth is known, is in notebook 3.
"""

# %%
judged = reliability(fit, "structured", top=50)
display(judged.scores[["mean", "calibration_error", "brier", "skill", "skill_over_popularity"]].round(4))
draw_reliability([judged])
