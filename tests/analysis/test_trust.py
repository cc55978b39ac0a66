"""Opening a run folder runs nobody's code but ours, whatever its files name, unless the caller names it too."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import inference
from pyro_cvae import trust
from pyro_cvae.errors import InputError
from pyro_cvae.runs import open_run
from tests.strangers import MODULES, SMALL, arguments, catalogue, command, edit_json, seal, working_in

ROOT = Path(__file__).resolve().parents[2]
CANARY = """
from pathlib import Path
Path({sign!r}).write_text("ran")
from models.contents.multinomial import Multinomial as Model
from models.ratings.normal import Normal as Ratings
"""
IN_RUN, BESIDE = "received.payload.Model", "beside.Model"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    inference.fit(catalogue(), out=folder / "run", mode="bayes", **SMALL)
    return folder / "run"


@pytest.fixture
def received(fitted, tmp_path):
    """A run called ``received`` in the current folder, with a module in it, and one beside it; both leave a sign."""
    run = tmp_path / "received"
    shutil.copytree(fitted, run)
    (run / "payload.py").write_text(CANARY.format(sign=str(tmp_path / "ran")))
    (tmp_path / "beside.py").write_text(CANARY.format(sign=str(tmp_path / "ran")))
    known = set(sys.modules)
    with working_in(tmp_path):
        yield run
    for name in set(sys.modules) - known:
        if name.split(".")[0] in ("received", "payload", "beside", "inner", "linked"):
            del sys.modules[name]


def ran(run: Path) -> bool:
    return (run.parent / "ran").exists() or bool({"received.payload", "payload", "beside"} & sys.modules.keys())


def asks(run: Path, path: str, field: str = "content_likelihood", arguments: dict[str, str] | None = None) -> None:
    """Have the run's options name a class."""

    def change(config):
        config["options"][field] = path
        if arguments is not None:
            config["options"][f"{field}_args"] = arguments

    edit_json(run / "config.json", change)
    listed(run)


def listed(run: Path) -> None:
    """A manifest of all files but the module."""
    hidden = run / "payload.py"
    text = hidden.read_text()
    hidden.unlink()
    seal(run)
    hidden.write_text(text)


def strings(value, path=()):
    """Places of all strings in a JSON value, and of all keys."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from strings(entry, (*path, key))
    elif isinstance(value, list):
        for place, entry in list(enumerate(value))[:2]:
            yield from strings(entry, (*path, place))
    elif isinstance(value, str):
        yield path


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    ("field", "path", "args"),
    [
        ("content_likelihood", IN_RUN, None),
        ("content_likelihood", BESIDE, None),
        ("content_likelihood", "beside:Model", {"text": "beside.Model"}),
        ("rating_likelihood", "beside.Ratings", None),
        ("model", "beside.Story", None),
        ("model", IN_RUN, None),
        ("network", "beside.Pair", None),
        ("network", IN_RUN, None),
        ("content_likelihood", "product", {"text": BESIDE}),
        ("content_likelihood", "product", {"text": "multinomial", "words": "tokens", "sketch": IN_RUN}),
        ("content_likelihood", "models.contents.product.Product", {"text": BESIDE}),
    ],
)
def test_no_command_imports_what_a_run_names(name, field, path, args, received):
    asks(received, path, field, args)
    code, out, err = command(name, arguments(name, received, received.parent))
    assert not ran(received)
    assert code == 2
    assert not out
    wanted = next(x for x in (path, *(args or {}).values()) if x.startswith(("received", "beside")))
    wanted = wanted.replace(":", ".")
    assert err == f"error: {received}: the run asks for {wanted}; if you trust it, add --trust {wanted}\n"
    assert sorted(entry.name for entry in received.parent.iterdir()) == ["beside.py", "received"]


def test_no_string_of_any_file_is_imported(received):
    """Every text in every JSON file, one after the other, names a class; the run is opened in all its parts."""
    files = [path for path in received.rglob("*.json") if path.name != "manifest.json"]
    places = [(file, place) for file in files for place in strings(json.loads(file.read_text()))]
    assert len(places) > 50
    texts = {file: file.read_text() for file in files}
    for file, place in places:
        for path in (BESIDE, IN_RUN):

            def change(value, place=place, path=path):
                for step in place[:-1]:
                    value = value[step]
                value[place[-1]] = path

            edit_json(file, change)
            listed(received)
            try:
                inference.load(received)
                open_run(received).items()
            except InputError:
                pass
            assert not ran(received), (file, place)
            file.write_text(texts[file])


@pytest.mark.parametrize("key", ["forward", "encoder", "__class__", "lambda_u"])
def test_what_was_learned_sets_precisions_alone(key, received):
    edit_json(received / "metrics.json", lambda metrics: metrics["precisions"].update({key: 0.25}))
    listed(received)
    model = inference.load(received).model
    assert type(model).__name__ == "CVAE"
    assert (getattr(model, key) == 0.25) is (key == "lambda_u")


@pytest.mark.parametrize("name", MODULES)
def test_a_class_that_the_caller_trusts_is_imported(name, received):
    asks(received, BESIDE)
    code, _, err = command(
        name, [*arguments(name, received, received.parent), "--trust", "beside.Other", "beside:Model"]
    )
    assert code == 0, err
    assert ran(received)


def test_trust_in_python_is_of_whole_paths(received):
    asks(received, BESIDE)
    for other in ("beside", "beside.Model.", "besides.Model", "Model", "*.Model", "beside.*", "models.Model"):
        with pytest.raises(InputError):
            inference.load(received, trust=[other])
    assert not ran(received)
    assert inference.load(received, trust=BESIDE).options.model.content_likelihood == BESIDE
    assert inference.load(open_run(received, trust=[BESIDE])).model is not None
    with pytest.raises(InputError, match="the run asks for"):  # consent is for one call
        inference.load(received)


def place(how: str, run: Path) -> str:
    """Ways in which a name may lead into a run folder; the class path to ask for."""
    if how == "its own folder":
        return IN_RUN
    if how == "current folder":
        os.chdir(run)
        sys.path.insert(0, "")
        return "payload.Model"
    if how == "on the path":
        sys.path.insert(0, str(run))
        return "payload.Model"
    if how == "with dots":
        sys.path.insert(0, str(run.parent / "received" / "data" / ".."))
        return "payload.Model"
    if how == "link to it":
        (run.parent / "linked.py").symlink_to(run / "payload.py")
        return "linked.Model"
    if how == "link to the run":
        (run.parent / "linked").symlink_to(run)
        return "linked.payload.Model"
    if how == "link out of it":
        (run / "payload.py").unlink()
        (run / "payload.py").symlink_to(run.parent / "beside.py")
        return IN_RUN
    (run / "data" / "inner.py").write_text((run / "payload.py").read_text())
    return "received.data.inner.Model"


WAYS = ["its own folder", "current folder", "on the path", "with dots", "link to it", "link to the run",
        "link out of it", "deeper"]  # fmt: skip


@pytest.mark.parametrize("how", WAYS)
def test_no_code_is_taken_from_a_run_folder_even_if_it_is_trusted(how, received):
    path = place(how, received)
    asks(received, path) if how != "link out of it" else None
    if how == "link out of it":
        edit_json(received / "config.json", lambda config: config["options"].update(content_likelihood=path))
        from pyro_cvae.runs.manifest import write_manifest

        files = [f for f in received.rglob("*") if f.is_file() and f.name not in ("manifest.json", "payload.py")]
        write_manifest(received, files)
    if how == "deeper":
        manifest = json.loads((received / "manifest.json").read_text())
        manifest["files"].pop("data/inner.py")
        (received / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    with pytest.raises(InputError, match="lies in a run folder, and no code is taken from one"):
        inference.load(received, trust=path)
    assert not ran(received)


def test_no_code_is_taken_from_another_run_folder_either(received, fitted, tmp_path):
    """Neither from one that is opened besides, nor by a flag of a fit."""
    shutil.copytree(fitted, tmp_path / "second")
    run = tmp_path / "second"
    edit_json(run / "config.json", lambda config: config["options"].update(content_likelihood=IN_RUN))
    seal(run)
    with pytest.raises(InputError, match="lies in a run folder"):
        inference.load(run, trust=IN_RUN)
    with pytest.raises(InputError, match="lies in a run folder"):
        inference.fit(catalogue(), content_likelihood=IN_RUN, **SMALL)
    code, _, err = command("inference.tune", ["coordinate", "--search", "factors=2,3", "--content-likelihood", IN_RUN])
    assert code == 2
    assert "lies in a run folder" in err
    assert not ran(received)


def test_one_s_own_class_is_imported_where_it_is_asked_for_on_the_command_line(received):
    fit = inference.fit(catalogue(), content_likelihood=BESIDE, out="own", **SMALL)
    assert ran(received)
    assert fit.options.model.content_likelihood == BESIDE
    with pytest.raises(InputError, match=f"the run asks for {BESIDE}; if you trust it, add --trust {BESIDE}"):
        inference.load("own")


@pytest.mark.parametrize("where", ["recommend", "svi"])
def test_no_file_says_whom_the_caller_trusts(where, received, tmp_path, capsys):
    asks(received, BESIDE)
    (tmp_path / "c.yaml").write_text("trust: [beside.Model]\n")
    argv = {"recommend": [str(received), "--user", "u1"], "svi": ["svi", "--search", "factors=2,3"]}[where]
    module = "inference.recommend" if where == "recommend" else "inference.tune"
    code, _, err = command(module, [*argv, "--config", "c.yaml"])
    assert code == 2
    assert err.startswith("error: c.yaml:1: ")
    assert not ran(received)


@pytest.mark.parametrize("module", ["inference.recommend", "inference.evaluate", "analysis.report"])
def test_in_a_run_folder_python_itself_imports_nothing_from_it(module, received):
    """Called from within the folder, whose modules have names that the program imports."""
    for name in ("yaml", "torch", "argparse", "typing", "json", "numpy", "payload", "contextlib"):
        (received / f"{name}.py").write_text(CANARY.format(sign=str(received.parent / "ran")))
    for argv, code in (([".", "--trust", "payload.Model"], 2), (["--help"], 0)):
        found = subprocess.run(
            [sys.executable, "-m", module, *argv],
            cwd=received,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (received.parent / "ran").exists(), found.stderr
        assert found.returncode in (0, code), found.stderr


def test_only_one_function_turns_a_name_into_an_import():
    """It asks; all others import packages that are installed."""
    allowed = {
        "pyro_cvae/trust.py",
        "inference/doctor.py", "analysis/draws/arviz_data.py",  # names of installed packages
    }  # fmt: skip
    found = {
        file.relative_to(ROOT).as_posix()
        for room in ("pyro_cvae", "models", "inference", "analysis")
        for file in (ROOT / room).rglob("*.py")
        if "import_module(" in file.read_text() or "__import__(" in file.read_text()
    }
    assert found == allowed
    assert trust.import_named.__doc__
