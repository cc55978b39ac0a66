"""The factors of a fit for other programs: arrays whose inner products are the scores of its lists, and their files.

Importing the package is light; torch is imported with the first of its names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.exporting.factors import Factors, factors_of
    from inference.exporting.folder import export_factors

__all__ = ["Factors", "export_factors", "factors_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inference.exporting.factors import Factors, factors_of
    from inference.exporting.folder import export_factors

    return next(one for one in (Factors, export_factors, factors_of) if one.__name__ == name)
