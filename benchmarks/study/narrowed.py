"""The OpenAPI document of a service, narrowed to what its run can answer.

What is generated from the document as it is published are ids that no run knows, and nearly all of it is refused.
Here ids are some of the run's own, half of the texts are words that it knows, fields that this fit has no answer to are
gone, and what the service asks beyond types is told: one rating an item, either a user or what one has liked.
"""

from __future__ import annotations

import copy
import random
from typing import Any

KNOWN = {"user": 50, "item": 200, "word": 200}
"""Ids and words of the run that the document names."""
WORDS = 4
"""Words of a text."""
OF_USERS, OF_ITEMS = ("user", "users"), ("item", "items", "candidates", "exclude")
UNCERTAIN = ("interval", "top_probability")
"""Fields that need a posterior."""
RATED = ("LikedAsked", "FoldInAsked")
"""Requests with items and their ratings."""
MOST_RATED = 4
Schema = dict[str, Any]


def narrowed(document: Schema, ids: dict[str, list[Any]], uncertain: bool, explicit: bool, seed: int = 0) -> Schema:
    """The document of a run with these ids, whose fit is ``uncertain`` or a point, of ``explicit`` ratings or not."""
    document, chance = copy.deepcopy(document), random.Random(seed)
    known = {kind: chance.sample(ids[kind], min(n, len(ids[kind]))) for kind, n in KNOWN.items()}
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        if not name.endswith("Asked"):
            continue
        fields = schema["properties"]
        for field in (*(() if uncertain else UNCERTAIN), *(() if explicit else ("ratings",))):
            fields.pop(field, None)
        of_users = (*OF_USERS, "exclude") if name == "SimilarUsersAsked" else OF_USERS
        for field, asked in fields.items():
            if field in of_users or field in OF_ITEMS:
                fields[field] = _with_known(asked, known["user" if field in of_users else "item"])
    if words := known["word"]:
        texts = [" ".join(chance.choices(words, k=WORDS)) for _ in words]
        fields = schemas["NewItemAsked"]["properties"]
        fields["text"] = {"anyOf": [{"enum": texts}, fields["text"]]}
    if explicit:
        for name in RATED:
            schemas[name] = {"anyOf": [_of_length(schemas[name], n) for n in range(1, MOST_RATED + 1)]}
    asked = schemas["WhyAsked"]
    schemas["WhyAsked"] = {"anyOf": [_given(asked, "user", "liked"), _given(asked, "liked", "user")]}
    return document


def _with_known(schema: Schema, known: list[Any]) -> Schema:
    """A field's schema where whatever is an id is one of these."""
    if "items" in schema:
        return schema | {"items": _with_known(schema["items"], known)}
    kinds = schema.get("anyOf", [])
    if not kinds:
        return schema
    if not {"integer", "string"} <= {kind.get("type") for kind in kinds}:
        return schema | {"anyOf": [_with_known(kind, known) for kind in kinds]}
    others = [kind for kind in kinds if kind.get("type") not in ("integer", "string")]
    return {"anyOf": [{"enum": known}, *others]}


def _of_length(schema: Schema, n: int) -> Schema:
    """A request of so many items with their ratings."""
    fields = schema["properties"]
    (ratings,) = (kind for kind in fields["ratings"]["anyOf"] if kind.get("type") == "array")
    size = {"minItems": n, "maxItems": n}
    fields = fields | {"items": fields["items"] | size, "ratings": ratings | size}
    return schema | {"properties": fields, "required": ["items", "ratings"]}


def _given(schema: Schema, there: str, gone: str) -> Schema:
    """A request with one of two fields, and without the other."""
    fields = {name: field for name, field in schema["properties"].items() if name != gone}
    if "anyOf" in fields[there]:
        fields[there] = {"anyOf": [kind for kind in fields[there]["anyOf"] if kind.get("type") != "null"]}
    return schema | {"properties": fields, "required": [there]}
