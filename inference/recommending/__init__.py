"""What a fit recommends: lists, similar items, chances of pairs, reasons, users folded in, items added.

Importing the package is light; torch is imported with the first of its names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.recommending.items import add_items
    from inference.recommending.lists import compare_items, recommend, similar_items
    from inference.recommending.reasons import why
    from inference.recommending.users import fold_in

__all__ = ["add_items", "compare_items", "fold_in", "recommend", "similar_items", "why"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inference.recommending.items import add_items
    from inference.recommending.lists import compare_items, recommend, similar_items
    from inference.recommending.reasons import why
    from inference.recommending.users import fold_in

    found = (add_items, compare_items, fold_in, recommend, similar_items, why)
    return next(one for one in found if one.__name__ == name)
