"""The package's own models by name, where their classes are, and what options must know of them. No heavy import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before torch is imported; a test compares it with the class.

    ``path`` is that of the class; ``has_content`` says that the items' contents are part of its story.
    """

    path: str
    has_content: bool


MODELS = {
    "cvae": ModelFacts("models.cvae:CVAE", has_content=True),
    "pmf": ModelFacts("models.pmf:PMF", has_content=False),
}
"""The package's own models by name; another is named by the path of its class."""
