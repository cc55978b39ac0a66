"""ArviZ data as a file that ArviZ, R and Julia read."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from inference.options.checking import check_new
from pyro_cvae.errors import MachineError
from pyro_cvae.whole import whole_file


def save(tree: Any, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write ArviZ data as NetCDF 4 (HDF5), a group each, whole or not at all; R (ncdf4) and Julia (NCDatasets) read it.

    Raises InputError where the file exists and ``overwrite`` is not given, MachineError where nothing can write it.
    """
    path = Path(out)
    check_new(path, overwrite)
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"no NetCDF can be written without {' and '.join(missing)}"
        raise MachineError(problem, f"pip install {' '.join(missing)}")
    with whole_file(path) as new:
        tree.to_netcdf(new, engine="h5netcdf")
    return path
