r"""Collaborative topic regression: items lie around the topics of their words.

Source: C. Wang and D. M. Blei, Collaborative Topic Modeling for Recommending Scientific Articles, KDD 2011, section 3.

For the topics
    beta_k ~ Dirichlet(1 + eta)                      words of topic k
For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    theta_j ~ Dirichlet(alpha)                       topic proportions
    x_j     ~ Multinomial(n_j, theta_j beta)         words, n_j of them
    v_j     ~ N(theta_j, lambda_v^-1 I)              latent item
For each user i and item j
    R_ij ~ N(s_ij, C_ij^-1),  s_ij = u_i.v_j         rating, with confidence C_ij as its precision

It is the :class:`~models.cvae.CVAE` whose z_j is a point of the simplex, at its maximum a posteriori. Topics start by
latent Dirichlet allocation. Once there are ratings theta and beta climb the joint density in closed form, v being held:
the words' topics are weighted as the present theta and beta say, which gives a bound that touches the density there
(Jensen), and the bound's maximum is taken (:func:`best_proportions`).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from scipy import sparse
from scipy.special import psi
from sklearn.decomposition import LatentDirichletAllocation
from torch import Tensor
from torch.nn import functional as F

from models.base import FactorModel, ItemPrior
from models.contents import ContentLikelihood
from models.contents.base import ContentDistribution
from models.item_prior import Pull
from models.networks import Decoder
from models.observations import Batch
from models.rows import AnyRows, NumberRows, SparseRows
from pyro_cvae.errors import InputError

STEPS, MOST_STEPS = 3, 100
"""Maxima of the bound in an epoch, and of new items at most so many until their proportions stand still."""
MOST_NEWTON = 100
FLOATS_AT_ONCE = 2**24


class TopicDecoder(Decoder):
    """l_jw = log sum_k theta_jk beta_kw, with ``beta`` (n_factors, n_features) a distribution of words in each row."""

    def __init__(self, n_features: int, n_factors: int) -> None:
        super().__init__()
        self.beta: Tensor
        weights = 1 + torch.rand(n_factors, n_features)
        self.register_buffer("beta", weights / weights.sum(-1, keepdim=True))

    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """Log probabilities of words, (n_items, n_features), or of those in ``columns`` only."""
        beta = self.beta if columns is None else self.beta[:, columns]
        return {"logits": (z @ beta).clamp(min=torch.finfo(z.dtype).tiny).log()}


class TopicWords(ContentDistribution):
    """p(x | theta), of which only the words that occur are looked at: log p(x) = log n!/prod x! + sum_w x_w l_w."""

    def log_prob(self, value: AnyRows) -> Tensor:
        """Log p(x_j | theta_j) in nats, (n_items,)."""
        assert isinstance(value, SparseRows)
        own: Any = self.decoder
        at = _at_words(self.z, own.beta, value).clamp(min=torch.finfo(self.z.dtype).tiny).log()
        coefficient = torch.lgamma(value.totals + 1).index_add(0, value.rows, -torch.lgamma(value.values + 1))
        return coefficient.index_add(0, value.rows, value.values * at)


class Topics(ItemPrior):
    """m_j = theta_j: the topic proportions of an item's words.

    Parameters: ``alpha`` that of the proportions' prior; the maximum of Dirichlet(1 + a) is what a mean field's mean
    under Dirichlet(a) is nearly (Asuncion et al., On smoothing and inference for topic models, UAI 2009), so that 1 +
    1 / n_factors, the default, goes with latent Dirichlet allocation's 1 / n_factors. ``eta`` is likewise that of the
    words, by default 1 / n_factors.

    Buffers: ``theta`` (n_items, n_factors) of the items of the fit, ``decoder.beta``, and what online latent Dirichlet
    allocation has counted, ``word_counts`` (n_factors, n_features), after ``n_batches``.
    """

    site: ClassVar[str] = "topics"
    drawn: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    generates: ClassVar[bool] = True

    theta: Tensor
    word_counts: Tensor
    n_batches: Tensor

    def __init__(
        self,
        n_items: int,
        n_features: int,
        n_factors: int,
        content: ContentLikelihood,
        lambda_r: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.eta = 1 + 1 / n_factors, 1 / n_factors
        self.decoder, self.content, self.lambda_r = TopicDecoder(n_features, n_factors), content, lambda_r
        self.register_buffer("theta", torch.full((n_items, n_factors), 1 / n_factors))
        self.register_buffer("word_counts", torch.zeros(n_factors, n_features))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.int64))

    @classmethod
    def made(cls, n_items: int, form: Any, likelihood: Any, options: Any) -> Topics:
        """Topics of words; InputError for another content, or a likelihood that is no multinomial."""
        if isinstance(form, dict) or form.kind != "words" or not likelihood.of_shares:
            what = "several contents" if isinstance(form, dict) else f"{type(likelihood).__name__} {form.kind}"
            remedy = "use --content-likelihood multinomial, or --content"
            raise InputError(f"topics are of words, not of {what}", remedy)
        return cls(n_items, form.n_features, options.factors, likelihood, options.lambda_r or 1.0)

    def weights(self) -> None:
        """The site theta, as a factor: log p(beta) up to its normaliser."""
        pyro.factor("theta", self.eta * self.decoder.beta.clamp(min=1e-30).log().sum())

    def weight_terms(self) -> dict[str, Tensor]:
        """Log p(beta) up to its normaliser, in nats."""
        return {"weights": (self.eta * self.decoder.beta.double().clamp(min=1e-30).log()).sum()}

    def forward(self, batch: Batch) -> Tensor:
        """The sites topics and x of the minibatch; the topics."""
        with poutine.scale(scale=self.lambda_r):
            prior = dist.Dirichlet(torch.full_like(self.theta[0], self.alpha), validate_args=False)
            theta = pyro.sample("topics", prior.expand([len(batch.items)]))
            pyro.sample("x", TopicWords(self.content, self.decoder, theta, batch.content), obs=batch.content)
        return theta

    def guide(self, batch: Batch) -> TorchDistribution:
        """The point theta_j."""
        return dist.Delta(self.theta[batch.items], event_dim=1)

    def of_items(self, items: Tensor, inputs: Any) -> tuple[Tensor, Tensor]:
        """Theta of these items, known for certain."""
        theta = self.theta[items]
        return theta, torch.zeros_like(theta)

    def encode(self, inputs: NumberRows) -> tuple[Tensor, Tensor]:
        """Theta of any items at its maximum given their words alone, known for certain."""
        theta = self.theta.new_full((len(inputs), self.theta.shape[1]), 1 / self.theta.shape[1])
        theta = self._climbed(theta, inputs, None, MOST_STEPS)[0]
        return theta, torch.zeros_like(theta)

    def draw(self, n: int, m: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of Dirichlet(alpha)."""
        gamma = torch.distributions.Gamma(torch.full_like(m, self.alpha), 1.0)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(torch.randint(2**31 - 1, (), generator=generator)))
            drawn = gamma.sample(torch.Size([n]))
        return drawn / drawn.sum(-1, keepdim=True)

    def learn(self, content: SparseRows, pull: Pull | None) -> None:
        """A pass of latent Dirichlet allocation over the words or, with a ``pull``, steps up the joint density."""
        if pull is None:
            self._allocate(content)
            self.theta.copy_(self._climbed(self.theta, content, None, STEPS)[0])
            return
        theta, counts = self._climbed(self.theta, content, pull, STEPS)
        self.theta.copy_(theta)
        beta = self.lambda_r * counts.mT + self.eta
        self.decoder.beta.copy_(beta / beta.sum(-1, keepdim=True))

    def _allocate(self, content: SparseRows) -> None:
        """One pass of scikit-learn's online variational Bayes (Hoffman, Blei and Bach, NIPS 2010), in order."""
        n_items, n_factors = len(content), self.theta.shape[1]
        seed = int(torch.randint(2**31 - 1, ()))
        parts = (content.values.cpu().numpy(), content.columns.cpu().numpy(), content.indptr.cpu().numpy())
        words = sparse.csr_matrix(parts, shape=tuple(content.shape))
        lda = LatentDirichletAllocation(
            n_factors,
            doc_topic_prior=1 / n_factors,
            topic_word_prior=self.eta,
            batch_size=min(1024, max(64, n_items // 50)),
            total_samples=n_items,
            random_state=seed,
        )
        if self.n_batches:  # goes on where the last pass ended; scikit-learn has no other way to be told
            lda.components_ = self.word_counts.cpu().numpy().astype(words.dtype)
            expected = psi(lda.components_) - psi(lda.components_.sum(-1, keepdims=True))
            lda.exp_dirichlet_component_ = np.exp(expected)
            lda.doc_topic_prior_, lda.topic_word_prior_ = 1 / n_factors, self.eta
            lda.random_state_, lda.n_batch_iter_ = np.random.RandomState(seed), int(self.n_batches)
        lda.partial_fit(words)
        self.n_batches.fill_(lda.n_batch_iter_)
        self.word_counts.copy_(torch.as_tensor(lda.components_))
        self.decoder.beta.copy_(self.word_counts / self.word_counts.sum(-1, keepdim=True))

    def _climbed(self, theta: Tensor, words: NumberRows, pull: Pull | None, most: int) -> tuple[Tensor, Tensor]:
        """Proportions after at most ``most`` maxima of the bound, and the words' expected counts by topic.

        An item that stands still is left alone: what becomes of it does not depend on those beside it. Shapes:
        ``theta`` (n_items, n_factors), counts (n_features, n_factors).
        """
        table, still = self.decoder.beta.mT.contiguous(), torch.finfo(theta.dtype).eps ** 0.5
        theta, counts = theta.clone(), torch.zeros_like(table)
        rows = torch.arange(len(theta), device=theta.device)
        for part in rows.split(max(1, FLOATS_AT_ONCE // (theta.shape[1] * _mean_length(words)))):
            own, proportions = words.select(part), theta[part]
            given = None if pull is None else Pull(pull.loc[part], pull.precision, pull.observed[part])
            goes_on = torch.ones_like(part, dtype=torch.bool)
            for _ in range(most):
                counts_by_item = _by_item(_expected(proportions, table, own), own)
                best = best_proportions(self.alpha - 1 + counts_by_item, given, self.lambda_r)
                goes_on &= (best - proportions).abs().amax(-1) > still
                if not bool(goes_on.any()):
                    break
                proportions = torch.where(goes_on[:, None], best, proportions)
            theta[part] = proportions
            if pull is not None:
                counts.index_add_(0, own.columns, _expected(proportions, table, own))
        return theta, counts


class CTR(FactorModel):
    """p(R, X, U, V, theta, beta) of the module's docstring, over a minibatch of items and all users.

    Parameters as of :class:`models.base.FactorModel`; ``alpha`` and ``eta`` as of :class:`Topics`.
    """

    has_content: ClassVar[bool] = True
    reads_by: ClassVar[type[ItemPrior]] = Topics
    as_is: ClassVar[bool] = True
    item_prior: Topics

    def __init__(self, *sizes: Any, alpha: float | None = None, eta: float | None = None, **options: Any) -> None:
        super().__init__(*sizes, **options)
        for name, value, least in (("alpha", alpha, 1.0), ("eta", eta, 0.0)):
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name} is {value:g}, but it must be a finite number, {least:g} or more")
            if value is not None:
                setattr(self.item_prior, name, float(value))

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta (of beta), u, topics, x, v, v_dagger, R, of which x and R are observed."""
        self.item_prior.weights()
        above = self.above()
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users(above)
        with pyro.plate("items", self.n_items, subsample=batch.items):
            topics = self.item_prior(batch)
            v = self.factors_of_items(topics, batch, above)
            self.ratings_of(u, v, batch)


def best_proportions(counts: Tensor, pull: Pull | None, lambda_r: float = 1.0) -> Tensor:
    """The theta of the simplex that maximises sum_k g_k log theta_k - p/2 |theta - y|^2, row by row.

    At the maximum g_k / theta_k - p (theta_k - y_k) = nu for all k, hence theta_k = 1/2 (c + sqrt(c^2 + 4 g_k / p))
    with c = y_k - nu / p; nu is found by Newton's method. Without a pull (p = 0) theta is g over its sum. The authors'
    projected gradient ascends the same function.

    Shapes: ``counts`` g (n_items, n_factors), 0 or more; ``pull`` has y, p and which items it is of. ``lambda_r``
    multiplies g.
    """
    total = counts.sum(-1, keepdim=True)
    free = torch.where(total > 0, counts / total.clamp(min=1e-30), 1 / counts.shape[1])
    if pull is None:
        return free
    there = pull.observed
    g, y = (lambda_r / pull.precision * counts[there]).double(), pull.loc[there].double()
    if not len(g):
        return free
    # The sum of theta(y + s) is increasing and convex in s, and 1 or more here: Newton's method comes down on its root.
    s = torch.minimum((1 - y.sum(-1, keepdim=True)) / g.shape[1], 1 - y.amax(-1, keepdim=True))
    for _ in range(MOST_NEWTON):
        theta, root = _positive_root(y + s, g)
        slope = torch.where(root > 0, theta / root.clamp(min=1e-300), 0.5).sum(-1, keepdim=True)
        step = (theta.sum(-1, keepdim=True) - 1) / slope.clamp(min=1e-12)
        s = s - step
        if float((step.abs() / (1 + s.abs())).max()) < 1e-12:
            break
    theta, _ = _positive_root(y + s, g)
    free[there] = (theta / theta.sum(-1, keepdim=True)).to(counts)
    return free


def _positive_root(c: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """1/2 (c + sqrt(c^2 + 4 g)), without loss of digits where c is negative, and the square root."""
    root = (c.square() + 4 * g).sqrt()
    return torch.where(c > 0, 0.5 * (c + root), 2 * g / (root - c).clamp(min=1e-300)), root


def _at_words(theta: Tensor, beta: Tensor, words: NumberRows) -> Tensor:
    """Probabilities of the stored words, (n_entries,), in parts."""
    rows, columns = words.rows, words.columns
    at = torch.arange(len(columns), device=columns.device).split(max(1, FLOATS_AT_ONCE // theta.shape[1]))
    parts = [(theta[rows[part]] * F.embedding(columns[part], beta.mT)).sum(-1) for part in at]
    return torch.cat(parts) if parts else theta.new_zeros(0)


def _expected(theta: Tensor, table: Tensor, words: NumberRows) -> Tensor:
    """Expected counts of the topics of each stored word, (n_entries, n_factors); ``table`` is beta, a row a word."""
    joint = theta[words.rows] * F.embedding(words.columns, table)
    return joint * (words.values.to(joint) / joint.sum(-1).clamp(min=torch.finfo(joint.dtype).tiny))[:, None]


def _by_item(weights: Tensor, words: NumberRows) -> Tensor:
    """Sums over the words of each item, (n_items, n_factors)."""
    return weights.new_zeros(len(words), weights.shape[1]).index_add(0, words.rows, weights)


def _mean_length(words: NumberRows) -> int:
    """Words of an item on average, at least one."""
    return max(1, len(words.columns) // max(1, len(words)))
