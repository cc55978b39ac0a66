"""Content likelihoods p(x | z): one class each; a new one is one file, named by its class path."""

from models.contents.base import ContentDistribution, ContentLikelihood, SubsampledContent

__all__ = ["ContentDistribution", "ContentLikelihood", "SubsampledContent"]
