"""Likelihoods by name, class path or instance."""

from __future__ import annotations

from typing import Any

from models.contents.base import ContentLikelihood
from models.making import class_of, made, path_of


def content_class(name: str) -> type[ContentLikelihood]:
    """The package's own likelihood of that name, or the class of a path ``module.Class``; InputError if unknown."""
    return class_of("content_likelihood", name)


def content_likelihood(name: str, arguments: dict[str, Any]) -> ContentLikelihood:
    """An instance of :func:`content_class`, made with these arguments; InputError where it does not take them."""
    return made("content_likelihood", name, arguments)


def described(likelihood: ContentLikelihood | type[ContentLikelihood]) -> tuple[str, dict[str, Any]]:
    """Name or class path and arguments that make the same likelihood again, from an instance or a class.

    What an instance has learned is not kept. Raises InputError for a class inside a function, which no path names.
    """
    cls = likelihood if isinstance(likelihood, type) else type(likelihood)
    name = path_of("content_likelihood", cls)
    arguments: dict[str, Any] = {}
    for key, value in ({} if isinstance(likelihood, type) else likelihood.made_with).items():
        if isinstance(value, ContentLikelihood):
            arguments[key], own = described(value)
            arguments |= {f"{key}.{argument}": given for argument, given in own.items()}
        else:
            arguments[key] = value
    return name, arguments
