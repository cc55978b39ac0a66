"""What everybody speaks of: data sets, splits, metrics, errors and run folders."""

import os as _os
import sys as _sys


def run_folder_above(place: str) -> str | None:
    """The run folder, finished or not, that a file or folder lies in or is, by its name or where its links lead."""
    for path in (_os.path.abspath(place), _os.path.realpath(place)):
        while True:
            if any(_begins_like_ours(_os.path.join(path, name)) for name in ("manifest.json", "writer.json")):
                return path
            path, before = _os.path.dirname(path), path
            if path == before:
                break
    return None


def _begins_like_ours(file: str) -> bool:
    if not _os.path.isfile(file):
        return False
    try:
        with open(file, "rb") as stream:
            head = stream.read(2**16)
    except OSError:
        return True
    return b'"sha256"' in head or b'"overwrite"' in head


# Python looks for modules in the current folder too: where that lies in a run folder, nothing is imported from it. What
# came before this line is only what Python itself loads when it starts.
_sys.path[:] = [place for place in _sys.path if run_folder_above(place or _os.curdir) is None]
