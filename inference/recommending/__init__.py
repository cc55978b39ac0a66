"""What a fit recommends: lists, similar items and users, chances of pairs, reasons, users folded in, items added.

Importing the package is light; torch is imported with the first of its names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.recommending.items import add_items
    from inference.recommending.lists import compare_items, recommend, similar_items
    from inference.recommending.neighbours import similar_users
    from inference.recommending.reasons import why
    from inference.recommending.users import fold_in

__all__ = ["add_items", "compare_items", "fold_in", "recommend", "similar_items", "similar_users", "why"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inference.recommending.items import add_items
    from inference.recommending.lists import compare_items, recommend, similar_items
    from inference.recommending.neighbours import similar_users
    from inference.recommending.reasons import why
    from inference.recommending.users import fold_in

    found = (add_items, compare_items, fold_in, recommend, similar_items, similar_users, why)
    return next(one for one in found if one.__name__ == name)
