"""An extension of griffe: roles such as ``:func:`fit` `` in docstrings become links, ``::`` at a line's end a colon."""

from __future__ import annotations

from typing import Any

import griffe

from docs.making.links import rewritten
from docs.making.names import modules, places

WHERE = places(modules())


class Roles(griffe.Extension):
    """Rewrites every docstring once, as soon as its object is read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """The docstring of ``obj``, rewritten."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value, obj.path, WHERE)
