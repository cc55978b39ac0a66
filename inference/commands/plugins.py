"""Models, networks and likelihoods by name or class path, and their arguments; torch is imported with the class."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from inference.commands.files import FromFile
from inference.commands.options import flag_of
from inference.commands.values import must_be
from inference.compatibility import AUTO, PRODUCT, by_kind, merged
from models.catalogue import GIVEN, PLUGINS
from models.making import base_of, class_of
from pyro_cvae import OURS
from pyro_cvae.errors import InputError
from pyro_cvae.trust import import_named, is_path


def load_class(field: str, class_path: str) -> type:
    """The class that ``my_module.MyLikelihood`` (or ``my_module:MyLikelihood``) names, for a field of PLUGINS.

    Raises InputError where it cannot be imported or is no subclass of the field's base class.
    """
    flag = flag_of(field)
    module_name, _, class_name = class_path.replace(":", ".").rpartition(".")
    try:
        named = import_named(class_path)
    except InputError as error:
        raise InputError(f"{flag}: {error.problem}", error.remedy, path=error.path) from None
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            remedy = "call the command from the folder that holds it, or install it"
            if (first := module_name.partition(".")[0]) in OURS:
                remedy = f"{first} is a package of pyro-cvae: give yours another name"
            raise InputError(f"{flag} names the module {module_name}, which cannot be found", remedy) from None
        raise InputError(f"{flag}: importing {module_name} failed: {error}", f"install {missing}") from None
    except AttributeError:
        raise InputError(f"{flag}: the module {module_name} has no class {class_name}", "check its spelling") from None
    except Exception as error:
        raise InputError(
            f"{flag}: importing {module_name} failed: {type(error).__name__}: {error}", "mend that module"
        ) from error
    if not (isinstance(named, type) and issubclass(named, base_of(field))):
        base = PLUGINS[field].base.replace(":", ".")
        raise InputError(f"{flag} is {class_path}, which is no {base.rpartition('.')[2]}", f"derive it from {base}")
    return named


def plugin_arguments(
    field: str, values: Mapping[str, Any], texts: Mapping[str, str], config: Mapping[str, FromFile]
) -> dict[str, Any]:
    """The checked arguments of the class that ``field`` names, from the YAML file and then the flags.

    ``texts`` are the flags' values by argument. Raises InputError for an argument that the class does not take.
    """
    chosen = values[field]
    arguments: dict[str, Any] = {}
    from_file = config.get(f"{field}_args")
    if from_file is not None and (field not in config or config[field].value == chosen):
        arguments |= from_file.value
    arguments = merged(arguments, texts) if chosen == AUTO else arguments | dict(texts)
    if not arguments and not is_path(chosen):
        return {}
    if chosen == PRODUCT:
        return _arguments_of_parts(field, arguments)
    if chosen == AUTO and field == "network":
        raise InputError(f"{flag_of(field)} is auto, which takes no arguments", "name a pair of networks")
    if chosen == AUTO:
        checked = _arguments_of_parts(field, by_kind(arguments))
        return {key: checked[key] for key in arguments}
    cls = _class_of(field, chosen)
    return _arguments_of_class(cls, flag_of(field), arguments, GIVEN if field == "model" else ())


def _class_of(field: str, name: str) -> type:
    """The class of that path, or the package's own of that name."""
    if is_path(name):
        return load_class(field, name)
    own = PLUGINS[field].own
    if name not in own:
        problem = f"{flag_of(field)} is {name!r}, which is no name of the package"
        raise InputError(problem, "use one of " + ", ".join(own))
    return class_of(field, name)


def _arguments_of_parts(field: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a product, each a name or class path, and ``part.argument``, checked by that part's class."""
    flag = flag_of(field)
    checked = {name: value for name, value in arguments.items() if "." not in name}
    for part in dict.fromkeys(name.partition(".")[0] for name in arguments if "." in name):
        if part not in checked:
            raise InputError(f"{flag}.{part} has arguments but no likelihood", f"give {flag}.{part} a name too")
        own = {key.partition(".")[2]: value for key, value in arguments.items() if key.startswith(part + ".")}
        of_class = _arguments_of_class(_class_of(field, checked[part]), f"{flag}.{part}", own)
        checked |= {f"{part}.{key}": value for key, value in of_class.items()}
    return checked


def _arguments_of_class(
    cls: type, flag: str, arguments: Mapping[str, Any], given: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments as the types that the constructor of ``cls`` names, those that the package gives left out."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_group=False, fail_untyped=False, skip=set(given))
    takes = [action.dest for action in parser._actions if action.dest not in ("help", "print_shtab")]
    for name in arguments:
        if name not in takes:
            raise InputError(f"unknown option {flag}.{name}", f"{cls.__name__} takes {', '.join(takes) or 'none'}")
    try:
        parsed = parser.parse_object(dict(arguments))
    except argparse.ArgumentError as error:
        message = str(error)
        if missing := re.match(r"the following arguments are required: (.*)", message):
            raise InputError(f"{cls.__name__} needs {missing[1]}", f"give {flag}.{missing[1].split(',')[0]}") from None
        wrong = re.search(r'[Pp]arser key "(\w+)"', message)
        name = wrong[1] if wrong else ""
        parameter = inspect.signature(cls, eval_str=True).parameters.get(name)
        must = f"be {must_be(parameter.annotation)}" if parameter else f"suit {cls.__name__}"
        raise InputError(f"{flag}.{name} is {arguments.get(name)!r}, but it must {must}") from None
    return {name: getattr(parsed, name) for name in arguments}
