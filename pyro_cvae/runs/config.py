"""The content of ``config.json``: every option of a fit, and what else its numbers depend on."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pyro_cvae.errors import InputError
from pyro_cvae.listed import SCHEMA
from pyro_cvae.runs.manifest import plain

FREE_OPTIONS = ("out", "log", "resume", "overwrite", "quiet", "progress", "checkpoint_seconds", "format")
"""Options that do not change the numbers of a fit, and may differ when it is resumed."""
ANEW = "start anew with --overwrite"
"""The remedy where a begun run cannot go on."""
CONFIG = {
    "schema": int,
    "command": str,
    "options": dict[str, Any],
    "objective": str | None,
    "tempered": bool,
    "versions": dict[str, str | None],
    "commit": str | None,
    "fingerprints": dict[str, str],
    "without_users": bool,
}
"""Types of the entries of config.json that :func:`run_config` writes."""
_PACKAGES = ("pyro-cvae", "torch", "pyro-ppl", "numpy", "scipy", "pandas", "safetensors")


def run_config(
    command: str,
    options: Mapping[str, Any],
    *,
    objective: str | None = None,
    tempered: bool = False,
    dataset: Any = None,
    split: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """The content of ``config.json``: ``options`` and where they came from.

    Parameters:
        command: Name of the command, e.g. ``svi``.
        options: Every option, resolved, flat.
        objective: ``elbo`` or ``map_objective``.
        tempered: Whether the objective is no bound (lambda_r or a KL weight other than 1).
        dataset, split: Their ``fingerprint()`` is recorded.
        more: Further JSON entries.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    fingerprints = {name: one.fingerprint() for name, one in (("data", dataset), ("split", split)) if one is not None}
    return {
        "schema": SCHEMA,
        "command": command,
        "options": plain(dict(options), "options"),
        "objective": objective,
        "tempered": tempered,
        "versions": versions,
        "commit": _commit(),
        "fingerprints": fingerprints,
        **plain(more, "config"),
    }


def with_schema(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as its file holds it, with the version of the layout in front."""
    return {"schema": SCHEMA, **plain(dict(config), "config")}


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, or ``None`` where it lies in none."""
    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return answer[1] if len(answer) == 2 and Path(answer[0]).resolve() == root else None


def check_same(stored: Any, given: Mapping[str, Any], free: Sequence[str], path: Path) -> None:
    """InputError naming the first thing that differs between the config of a begun run and the one given now.

    Options named in ``free`` may differ; ``path`` is the file that holds ``stored``.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("options"), dict):
        raise InputError("is damaged: no options", ANEW, path=path)
    if stored.get("command") != given.get("command"):
        raise InputError(
            f"the run was begun by {stored.get('command')!r}, not {given.get('command')!r}", ANEW, path=path
        )
    before, now = stored["options"], given.get("options", {})
    for name in sorted((before.keys() | now.keys()) - set(free)):
        was, is_ = (json.dumps(side[name]) if name in side else "not known" for side in (before, now))
        if was != is_ and before.get(name, was) != now.get(name, is_):  # 10 and 10.0 are the same
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} is {is_}, but the run was begun with {was}",
                f"give {flag} its old value, or {ANEW}",
                path=path,
            )
    before, now = stored.get("fingerprints") or {}, given.get("fingerprints") or {}
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            what = "data have" if name == "data" else f"{name} has"
            raise InputError(f"the {what} changed since the run was begun", f"restore what was, or {ANEW}", path=path)


def changed_versions(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A line for each package that has another version now than when the run was begun."""
    before, now = stored.get("versions") or {}, given.get("versions") or {}
    return [
        f"the run was begun with {name} {before[name]} and goes on with {now[name]}: the numbers may differ"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
