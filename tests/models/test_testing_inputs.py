"""Mistakes that only inputs of the kit's own find: a likelihood that draws its own test cases would hide them."""

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import nn

from models.contents.categorical import Categorical
from models.contents.multinomial import Multinomial, PseudoMultinomial
from models.contents.normal import Normal as NormalContent
from models.contents.poisson import Poisson as PoissonContent
from models.contents.product import Product
from models.contents.tokens import Tokens
from models.ratings import RatingLikelihood
from models.ratings.bernoulli import Bernoulli
from models.ratings.normal import Normal
from models.ratings.poisson import Poisson
from models.rows import DenseRows, SparseRows
from models.testing import check_likelihood, check_rating_likelihood
from models.testing_inputs import compositions
from tests.models.own_ratings import Bounded, Ordinal, Stars, Students

# --- contents --------------------------------------------------------------------------------------------------------


class OneWord(Multinomial):
    """Draws texts of one word, whatever was asked for."""

    def sample(self, params, like):
        return SparseRows.from_dense(dist.OneHotCategorical(logits=params["logits"]).sample())


class WrongBeyondOneWord(OneWord):
    """And so nobody asks for the density of longer ones."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params) + 0.3 * (obs.totals - 1).clamp(min=0)


class WrongBeyondOneWordInBoth(WrongBeyondOneWord):
    """In distribution too, so that the two agree."""

    def distribution(self, **params):
        class Wrong(dist.Multinomial):
            def log_prob(self, value):
                return super().log_prob(value) + 0.3 * (value.sum(-1) - 1).clamp(min=0)

        return Wrong(total_count=1, logits=params["logits"], validate_args=False)

    def sample(self, params, like):
        return Multinomial.sample(self, params, like)


class LengthOfTheFirst(Multinomial):
    """All texts of a minibatch are as long as its first."""

    def sample(self, params, like):
        first = like.select(torch.zeros(len(like), dtype=torch.int64))
        return super().sample(params, first)


class SameWordAgain(Multinomial):
    """Texts are as long as they should be, of one word repeated: means are right."""

    def sample(self, params, like):
        word = dist.OneHotCategorical(logits=params["logits"]).sample()
        return SparseRows.from_dense(word * like.totals[:, None])


class PseudoOneWord(PseudoMultinomial):
    """The same fault of a likelihood without a normaliser."""

    sample = OneWord.sample


class WrongForLargeCounts(PoissonContent):
    """Counts above 20 are cut off, in log_prob alone."""

    def log_prob(self, obs, params):
        cut = SparseRows(obs.indptr, obs.columns, obs.values.clamp(max=20), obs.n_columns)
        return super().log_prob(cut, params)


class LengthOfLike(PoissonContent):
    """Draws depend on what they are like, which gives no length here."""

    def sample(self, params, like):
        drawn = super().sample(params, like).dense()
        return SparseRows.from_dense(drawn * (like.totals > 3)[:, None])


class WrongFarOut(NormalContent):
    """Residuals are cut off at 5, which draws hardly reach."""

    def log_prob(self, obs, params):
        away = (obs.dense() - params["loc"]).clamp(-5, 5)
        return dist.Normal(0.0, 1.0).log_prob(away).sum(-1)


class NeedsSparseRows(NormalContent):
    """Says that it reads vectors, and is wrong of the rows that vectors have."""

    def log_prob(self, obs, params):
        found = super().log_prob(obs, params)
        return found + 1 if isinstance(obs, DenseRows) else found


class SeveralCategories(Categorical):
    """Takes several categories an item, where its distribution has one."""

    check = Multinomial.check

    def distribution(self, **params):
        return dist.OneHotCategorical(logits=params["logits"])


class MeanOfItsOwn(NormalContent):
    """Mean and draws agree with one another, not with the density."""

    class Shifted(dist.Normal):
        @property
        def mean(self):
            return self.loc + 1

        def sample(self, sample_shape=()):
            return super().sample(sample_shape) + 1

        def expand(self, batch_shape, _instance=None):
            return type(self)(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    def distribution(self, **params):
        return dist.Independent(self.Shifted(params["loc"], torch.ones_like(params["loc"])), 1)


class CutSequences(Tokens):
    """Tokens behind the eighth are not scored."""

    def log_prob(self, obs, params):
        ended = obs.ended()
        at = params["logits"].log_softmax(-1).gather(-1, ended.tokens[:, None]).squeeze(-1)
        place = torch.arange(len(at)) - ended.indptr[ended.rows]
        return at.new_zeros(len(obs)).index_add(0, ended.rows, torch.where(place < 8, at, 0.0))


class ProductOfOne(Product):
    """A product that draws one word of each part."""

    def conditional(self, decoder, z, content, sampled):
        parts = {
            name: SparseRows.from_dense((rows.dense().cumsum(-1) > 0).double() * torch.eye(rows.n_columns)[0])
            for name, rows in content.parts.items()
        }
        return super().conditional(decoder, z, type(content)(parts, content.present), sampled)


CONTENTS = {
    OneWord: "sample draws 1 words where 9 were asked for; draw texts as long as those of `like`",
    WrongBeyondOneWord: "sample draws 1 words where 9 were asked for",
    WrongBeyondOneWordInBoth: r"p\(x\) sums to 1\.3.* over its support, not to 1",
    LengthOfTheFirst: "sample draws 9 words where 1 were asked for",
    SameWordAgain: "the variance of 20000 draws of sample of texts of 9, 1, 4 words is .* standard errors off",
    PseudoOneWord: "sample draws 1 words where 9 were asked for",
    WrongForLargeCounts: r"log_prob is .* where distribution's is .*; let it be right for .* long texts",
    LengthOfLike: "the (mean|variance) of 20000 draws of sample is .* standard errors off that of distribution",
    WrongFarOut: "log_prob is (not distribution's log_prob|.* where distribution's is)",
    NeedsSparseRows: r"log_prob of rows of numbers \(DenseRows\) is .* where distribution's is",
    SeveralCategories: r"check accepts .*, which is outside the support of distribution",
    MeanOfItsOwn: "the mean that distribution states .* is not that of its density",
    CutSequences: "log_prob is not the sum over tokens, and the end",
}


@pytest.mark.parametrize("likelihood", CONTENTS, ids=lambda cls: cls.__name__)
def test_a_mistake_in_contents_is_found(likelihood):
    with pytest.raises(AssertionError, match=f"^{likelihood.__name__}: .*{CONTENTS[likelihood]}"):
        check_likelihood(likelihood)


class RightDraws(WrongBeyondOneWord):
    """The density alone is wrong: draws are those of the package."""

    sample = Multinomial.sample


def test_a_density_that_is_wrong_beyond_one_word_is_found_by_itself():
    with pytest.raises(AssertionError, match=r"RightDraws: log_prob is (not distribution's|.* where distribution's)"):
        check_likelihood(RightDraws)


@pytest.mark.parametrize("part", [OneWord, WrongForLargeCounts])
def test_a_product_is_as_good_as_its_parts(part):
    path = f"tests.models.test_testing_inputs.{part.__name__}"
    with pytest.raises(AssertionError, match=f"^Product: its part a breaks the contract: {part.__name__}: "):
        check_likelihood(Product, a=path, b="bernoulli")


def test_a_product_passes_on_how_long_texts_are():
    with pytest.raises(AssertionError, match="ProductOfOne: a draw of the part text has texts of other lengths"):
        check_likelihood(ProductOfOne, text="multinomial", tags="bernoulli")


def test_compositions_are_all_counts_of_a_total():
    found = compositions(4, 3)
    assert len(found) == math.comb(6, 2) == len(found.unique(dim=0))
    assert (found.sum(-1) == 4).all() and (found >= 0).all()


# --- ratings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [Students, Ordinal, Bounded])
def test_likelihoods_that_are_not_normal_pass(likelihood):
    check_rating_likelihood(Refusing.of(likelihood))


class Refusing:
    """A class of likelihoods with a check of its support, which these examples leave out."""

    @staticmethod
    def of(likelihood):
        from models.ratings.base import stored_support

        def check(self, columns):
            low, high = {Ordinal: (1, 5), Bounded: (1, 5)}.get(likelihood, (-math.inf, math.inf))
            good = (columns.ratings >= low) & (columns.ratings <= high)
            if likelihood is Ordinal:
                good &= columns.ratings == columns.ratings.round()
            stored_support(columns, good, "its", "stars", "use others")

        return type(likelihood.__name__, (likelihood,), {"check": check})


class WrongFarFromTheScore(Normal):
    """Errors above 6 are cut off, which draws do not reach."""

    def log_prob(self, score, ratings, confidence):
        return self.cell(score, confidence).log_prob(score + (ratings - score).clamp(-6, 6))


class WrongForManyPlays(Poisson):
    """Counts above 50 are wrong."""

    def log_prob(self, score, ratings, confidence):
        return super().log_prob(score, ratings, confidence) - 0.1 * (ratings - 50).clamp(min=0)


class WrongForLargeScores(Bernoulli):
    """Clicks at scores below -3."""

    def log_prob(self, score, ratings, confidence):
        return super().log_prob(score.clamp(min=-3), ratings, confidence)


class DrawsAnotherWidth(RatingLikelihood):
    """Mean, variance and draws agree with one another, not with the density, which integrates to one."""

    class Cells(dist.Normal):
        def log_prob(self, value):
            return dist.Normal(self.loc, 1.4 * self.scale).log_prob(value)

    def __init__(self):
        super().__init__()
        self.zeros = False

    def cell(self, score, confidence):
        return self.Cells(score, confidence.rsqrt())


class LosesATenth(Bounded):
    """A density between 1 and 5 that integrates to 0.9."""

    class Cells(dist.TransformedDistribution):
        def log_prob(self, value):
            return super().log_prob(value) + math.log(0.9)

    def cell(self, score, confidence):
        right = super().cell(score, confidence)
        return self.Cells(right.base_dist, right.transforms)


class LosesAStar(Ordinal):
    """Masses of whole stars that sum to less than one."""

    class Cells(Stars):
        def log_prob(self, value):
            return super().log_prob(value) - 0.2 * (value == 5)

    def cell(self, score, confidence):
        return self.Cells(score)


class AnotherCdf(RatingLikelihood):
    """A distribution function that is not its density's."""

    class Cells(dist.Normal):
        def cdf(self, value):
            return super().cdf(value + 0.2)

    def __init__(self):
        super().__init__()
        self.zeros = False

    def cell(self, score, confidence):
        return self.Cells(score, confidence.rsqrt())


class PredictsTooSurely(Students):
    """A predictive distribution of its own that forgets how unsure the score is."""

    def predictive(self, mean, variance, confidence=None):
        return super().predictive(mean, 0 * variance, confidence)


class Unnamed(Ordinal):
    """Discrete values that nobody can list."""

    class Cells(Stars):
        class _Some(constraints.Constraint):
            is_discrete = True

            def check(self, value):
                return value * math.pi == (value * math.pi).round()

        support = _Some()

        def log_prob(self, value):
            return torch.full(torch.broadcast_shapes(value.shape, self.score.shape), -5.0)

    def cell(self, score, confidence):
        return self.Cells(score)


RATINGS = {
    WrongFarFromTheScore: "log_prob of a rating of .* at the score .*, that of cell",
    WrongForManyPlays: "log_prob of a rating of (60|150) at the score .*, that of cell",
    WrongForLargeScores: "log_prob of a rating of 0 at the score -4 is",
    DrawsAnotherWidth: "the variance that cell states is .*, that of its density",
    LosesATenth: r"p\(R \| s\) sums to 0\.9 over its support",
    LosesAStar: r"p\(R \| s\) sums to 0\.\d+ over its support",
    AnotherCdf: "cdf is not the integral of cell's density",
    PredictsTooSurely: "log_prob of predictive is not that of cell's average over scores",
    Unnamed: "the values of the discrete distribution Cells are not known; give it a support",
}


@pytest.mark.parametrize("likelihood", RATINGS, ids=lambda cls: cls.__name__)
def test_a_mistake_in_ratings_is_found(likelihood):
    with pytest.raises(AssertionError, match=f"^{likelihood.__name__}: .*{RATINGS[likelihood]}"):
        check_rating_likelihood(likelihood)


def test_a_parameter_of_its_own_is_no_hindrance():
    class Scaled(Students):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def cell(self, score, confidence):
            return dist.StudentT(5.0, score, self.log_scale.exp() * confidence.rsqrt())

    check_rating_likelihood(Scaled)
