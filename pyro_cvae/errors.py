"""Errors that a person can act on: one line that names the file, the line where there is one, and the remedy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_cvae.blame import plugin_failure, without_shapes
from pyro_cvae.terminated import end_by_sigterm, end_worker_by_sigterm
from pyro_cvae.text import log_to_stderr, visible, write_anything

_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|DefaultCPUAllocator|enforce fail at \S*alloc_cpu|out of memory"
    r"|std::bad_alloc|bad allocation|Storage size calculation overflowed|Unable to allocate|array is too big"
    r"|Maximum allowed (dimension|size) exceeded|can't start new thread|malloc of size \d+ failed"
    r"|numel: integer multiplication overflow|not enough memory",
    re.IGNORECASE,
)
"""How torch, numpy, Arrow and C++ say that memory is short, or that no memory could be as large: a class has none."""
_LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer .*gloo|NCCL error|ncclRemoteError")
"""How torch.distributed says that another process is gone."""
_WANTED = re.compile(r"(?:Unable to allocate|you tried to allocate|Tried to allocate) ([\d.,]+ \w+)", re.IGNORECASE)


class PyroCvaeError(Exception):
    """Base of all errors raised on purpose: ``path:line: problem; remedy``.

    Parameters: ``problem`` says what is wrong, ``remedy`` what to do, ``path`` and ``line`` (1-based) where. The text
    shows control characters of ids, titles and paths (:func:`pyro_cvae.text.visible`).
    """

    exit_code = 1

    def __init__(
        self, problem: str, remedy: str = "", *, path: str | os.PathLike[str] | None = None, line: int | None = None
    ) -> None:
        self.problem, self.remedy, self.path, self.line = problem, remedy, path, line
        where = "" if path is None else f"{Path(path)}:{line}: " if line is not None else f"{Path(path)}: "
        text = where + problem + (f"; {remedy}" if remedy else "")
        super().__init__(visible(" ".join(text.split())))


class InputError(PyroCvaeError):
    """What was given is wrong (a file, an option, an id): exit code 2."""

    exit_code = 2


class MachineError(PyroCvaeError):
    """What the machine lacks (disk space, memory, network, a package): exit code 1."""

    exit_code = 1


@contextmanager
def about_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """An InputError that names no file names this one."""
    try:
        yield
    except InputError as error:
        if error.path is not None:
            raise
        raise InputError(error.problem, error.remedy, path=path, line=error.line) from None


def shown(value: object, most: int = 80) -> str:
    """``repr`` of what a person gave, cut to ``most`` characters; a number too long to be written is so called."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too long to be written"
    return text if len(text) <= most else text[: most - 4] + " ..."


def run_command(main: Callable[[], None]) -> int:
    """Run a command line and turn its errors into one line on stderr and an exit code, never a traceback.

    0 done, 1 what the machine lacks, 2 what was given, 130 Ctrl-C, 143 SIGTERM. With ``PYRO_CVAE_DEBUG=1`` the
    traceback is kept.
    """
    (end_by_sigterm if os.environ.get("WORLD_SIZE", "1") == "1" else end_worker_by_sigterm)()
    write_anything()
    log_to_stderr()
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PYRO_CVAE_DEBUG"):
            raise
        known = as_known(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    return 0


def as_known(error: BaseException) -> PyroCvaeError | None:
    """Our own error for an exception whose cause a person can mend (disk, memory, a plug-in), or ``None``.

    Ctrl-C and the end of a program are none, wherever they come.
    """
    if not isinstance(error, Exception):
        return None
    error = without_shapes(error)
    if isinstance(error, PyroCvaeError):
        return error
    failure = plugin_failure(error)
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or _NO_MEMORY.search(str(error))
        or (isinstance(error, OverflowError) and failure is None)
    ):
        wanted = _WANTED.search(str(error))
        what = f"out of memory (wanted {wanted[1]} more)" if wanted else "out of memory"
        return MachineError(what, "use a smaller --batch-size or fewer --factors")
    if failure is not None:
        return InputError(failure, "mend it; PYRO_CVAE_DEBUG=1 shows the traceback")
    if _LOST.search(str(error)):
        return MachineError(
            "another worker of the fit has ended or cannot be reached", "a fit with --out goes on with --resume"
        )
    if isinstance(error, OSError) and error.strerror:
        remedy = {28: "free some space or choose another folder", 13: "check the permissions"}.get(error.errno or 0, "")
        return MachineError(error.strerror, remedy, path=error.filename)
    return None
