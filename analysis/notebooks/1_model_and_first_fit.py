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
# The model, and a first fit

Who chose what, and what the items are about, told by one generative story. Here it is read, drawn from, fitted twice
(points: `map`; posteriors: `bayes`) and asked for recommendations.

On the embedded data this takes seconds. `PYRO_CVAE_NOTEBOOK_DATA` names other data, for instance a folder with the
files of citeulike-t; there it takes minutes.
"""

# %%
# %matplotlib inline
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Image, display

import analysis
import inference
from analysis.diagnostics import content_units, traces
from analysis.plots import CYCLE, figure
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import RIVALS
from inference.recommending import recommend, similar_items
from models.build import observe
from models.drawing import draw
from pyro_cvae.data.registry import load_dataset

DATA = os.environ.get("PYRO_CVAE_NOTEBOOK_DATA", "simulated")
SETTINGS = {"factors": 10, "epochs": 5} if DATA == "simulated" else {"preset": "best", "factors": 50, "hidden": (50,)}
AUTHORS_SPLIT = Path(DATA) / "cf-train-10-users.dat"
SPLIT = {"train_file": str(AUTHORS_SPLIT)} if AUTHORS_SPLIT.exists() else {"train_per_user": 10}

# %% [markdown]
r"""
## The story

A user $i$ likes $K$ things more or less, $u_i$. An item $j$ is about the same $K$ things, $z_j$; that makes its text
$x_j$, through a network. What the text does not tell is $v^\dagger_j$, and a rating knows both,
$v_j = z_j + v^\dagger_j$:

$$
\begin{aligned}
u_i &\sim N(0, \lambda_u^{-1} I) &
z_j &\sim N(0, I) &
v_j &\sim N(z_j, \lambda_v^{-1} I) \\
x_j &\sim p_\theta(x \mid z_j) &
R_{ij} &\sim N(u_i \cdot v_j, C_{ij}^{-1}) &
C_{ij} &= a \text{ if } i \text{ chose } j, \text{ else } b
\end{aligned}
$$

$a$ is much larger than $b$: a choice says a lot, and not to have chosen says little. The program is `models/cvae.py`,
some forty lines that read like these. Source: Li and She, *Collaborative Variational Autoencoder*, KDD 2017.

## Data drawn from it

`simulated` has users, items and texts of this story, and clicks: user $i$ clicks one item after the other, with
probability proportional to $\exp(u_i \cdot v_j)$. Its words are made of themes, so that one can read what an item is
about.
"""

# %%
dataset = load_dataset(DATA)
words = np.array(dataset.content.vocabulary)
text = dataset.content.counts[0]
display(dataset)
" ".join(words[text.indices[np.argsort(-text.data)]][:25])

# %%
drawn, ((left, right),) = figure(2)
left.plot(1 + np.arange(dataset.n_items), -np.sort(-dataset.interactions.item_counts))
left.set(xlabel="item, by popularity", ylabel="clicks", yscale="symlog", ylim=(0, None))
left.set_title("A few items are chosen often")
clicks = dataset.interactions.user_counts
right.hist(clicks, bins=np.geomspace(max(1, clicks.min()), clicks.max(), 30), color=CYCLE[0])
right.set(xlabel="clicks of a user", ylabel="users", xscale="log", title="and most users choose little")
drawn

# %% [markdown]
r"""
## Two fits

Ten clicks of each user are for training, the rest is the test. Both fits train the networks by gradients and update $u$
and $v$ in closed form. `map` keeps a point of each; `bayes` with the structured guide keeps $q(u_i)$ and
$q(v_j \mid z_j)$, Normals with full covariances.
"""

# %%
fits = {
    "map": inference.fit(dataset, method="coordinate", mode="map", **SETTINGS, **SPLIT),
    "bayes": inference.fit(dataset, method="coordinate", mode="bayes", guide="structured", **SETTINGS, **SPLIT),
}
fit = fits["bayes"]
pd.DataFrame(fit.history).set_index("epoch").tail(3)

# %% [markdown]
"""
The same story, drawn by Pyro from the program that was fitted. Grey is observed; what is dashed follows from the rest.
"""

# %%
if shutil.which("dot"):
    observations, _ = observe(dataset, fit.split, fit.model.content, fit.options.model, fit.options.data.scaling)
    display(draw(fit.model, observations.batch(torch.arange(2))))
else:
    display(Image(Path(analysis.__file__).parents[1] / "docs" / "model.png", width=420))

# %% [markdown]
"""
### How it went

Each number has a panel of its own. First the contents alone are learned; then epochs of everything; last, with the
networks held, sweeps over $u$ and $v$. On the embedded data the sweeps have converged and the networks have not, five
epochs being few (the default is 20, and ranks better). `bayes` maximises an evidence lower bound, `map` does not: the
two numbers can never be compared.
"""

# %%
traces(fit)

# %% [markdown]
"""
## Does it rank well?

Recall@M: the share of a user's test items among the first M, training items left out. Beside the fits stand popularity,
the TF-IDF cosine, which reads the texts alone, and where the truth is known the ranking by the true scores, which no
fit can beat but by luck.
"""

# %%
cutoffs = (10, 25, 50, 100, 150, 200, 250, 300)
rankings = {name: one.posterior.score_block for name, one in fits.items()}
rankings |= {name: RIVALS[name](dataset, fit.split) for name in ("tfidf", "popularity")}
if dataset.truth is not None:
    rankings["true scores"] = torch.as_tensor(dataset.truth["scores"]).__getitem__
recall = pd.DataFrame({name: evaluate(one, fit.split, cutoffs=cutoffs).means() for name, one in rankings.items()})
recall = recall.loc[[f"recall@{m}" for m in cutoffs]].set_axis(cutoffs)
drawn, ((axes,),) = figure(width=6.5, height=4)
for name, color, line in zip(recall, CYCLE, ("-", "--", "-.", ":", "-"), strict=False):
    axes.plot(recall.index, recall[name], line, marker=".", color=color, label=name)
axes.set(xlabel="M", ylabel="recall@M", ylim=(0, None), title="Held-out clicks among the first M")
axes.legend()
drawn

# %% [markdown]
r"""
`map` and `bayes` rank alike; notebook 3 asks closely. What they have over TF-IDF comes from the choices of others.

## Is the content alive?

A variational autoencoder may learn to ignore its latent variable: then the KL of $q(z_k \mid x)$ from its prior is 0,
and the model is plain matrix factorisation. On the embedded data every unit carries something: KL, and the eigenvalues
of the means' covariance, are far above 0.01, the usual limit of "active".
"""

# %%
table, drawn = content_units(fit)
display(pd.Series(fit.metrics["content"], name="content").to_frame().T.round(2))
drawn

# %% [markdown]
"""
A text that goes through $z$ and back keeps its themes: the likeliest words that the decoder gives to an item, beside
the most frequent ones of its own text.
"""

# %%
rows = [0, 1, 2]
with torch.no_grad():
    (logits,) = fit.model.decoder(fit.posterior.mean("z")[rows]).values()
likely = logits.topk(8).indices.numpy()
own = [np.argsort(-dataset.content.counts[row].toarray()[0], kind="stable")[:8] for row in rows]
pd.DataFrame(
    {"own words": [" ".join(words[w]) for w in own], "decoded from z": [" ".join(words[w]) for w in likely]},
    index=pd.Index(dataset.item_ids[rows], name="item"),
).style.set_properties(**{"text-align": "left"})

# %% [markdown]
"""
## Recommend

Ids go in and come out, those of your own data. `sd` is the posterior's standard deviation of the score; a `cold` item
has no click in training and is ranked by its text alone.
"""

# %%
user = dataset.user_ids[:7][-1]
recommend(fit, [user], top=8).round(3)

# %% [markdown]
"""
What this user chose in training, and the items that are most like the first recommendation:
"""

# %%
train = fit.split.train
chosen = train.items[train.users == dataset.user_rows([user])[0]]
titles = None if dataset.titles is None else dataset.titles[chosen]
display(pd.DataFrame({"item": dataset.item_ids[chosen], "title": titles}))
similar_items(fit, recommend(fit, [user], top=1)["item"], top=5).round(3)

# %% [markdown]
"""
Next: how sure these scores are (notebook 2), and what the posterior is good for beside points (notebook 3).
"""
