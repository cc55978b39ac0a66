"""Content likelihoods p(x | z): one class each; a new one is one file, named by its class path."""

from models.contents.base import ContentDistribution, ContentLikelihood, SubsampledContent

NAMES = {
    "bernoulli": "models.contents.bernoulli:Bernoulli",
    "pseudo-bernoulli": "models.contents.bernoulli:PseudoBernoulli",
    "multinomial": "models.contents.multinomial:Multinomial",
    "pseudo-multinomial": "models.contents.multinomial:PseudoMultinomial",
    "categorical": "models.contents.categorical:Categorical",
    "poisson": "models.contents.poisson:Poisson",
    "negative-binomial": "models.contents.negative_binomial:NegativeBinomial",
    "normal": "models.contents.normal:Normal",
    "tokens": "models.contents.tokens:Tokens",
    "product": "models.contents.product:Product",
}
"""The package's own likelihoods: name on the command line, and where its class is."""

__all__ = ["NAMES", "ContentDistribution", "ContentLikelihood", "SubsampledContent"]
