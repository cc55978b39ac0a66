"""Kinds of what is said of data by a word: a ``Literal`` each; ``typing.get_args`` gives its words."""

from typing import Literal

TextKind = Literal["words", "tokens"]
"""Contents that are made of texts."""
ContentKind = Literal[TextKind, "images", "vectors"]
"""Contents of items: word counts, sequences of words, images, vectors."""
SourceKind = Literal[ContentKind, "links", "embed"]
"""How a content is read: links become words, one for each item or thing that an item is linked with; texts that are
embedded become vectors."""
Ratings = Literal["clicks", "stars"]
"""What a rating is: a choice, or a number of its own."""
Entries = Literal["choices", "weights", "stars"]
"""What the entries of a matrix of users and items are."""
Splitting = Literal["per-user", "time", "last", "items", "cells", "none"]
"""How training and test are told apart."""
Scaling = Literal["none", "binary", "word-max", "row-max", "tfidf", "tfidf-counts"]
"""How word counts become content; see :class:`pyro_cvae.data.content.ContentScaling`."""
Html = Literal["strip", "keep"]
"""What is done with tags and entities in texts."""
Unknown = Literal["error", "drop"]
"""What is done with a row of an item that the data have not."""
UnknownId = Literal[Unknown, "prior"]
"""What is done with an unknown id: "prior" stands for nothing known but the prior."""
