"""From `package.module:NAME` to a workflow instance, or to an error that says what was found instead."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from perdure.errors import EntrypointError
from perdure.workflow import Workflow


def add_source_path(source_path: str) -> None:
    """Put the folders of `source_path` (separated as in PATH) first on the Python path."""
    for folder in reversed([part for part in source_path.split(os.pathsep) if part]):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def load_workflow(entrypoint: str) -> Workflow[Any]:
    """Import the module and make the workflow that NAME is: a class, an instance, or a function.

    Raises EntrypointError.
    """
    module_name, colon, name = entrypoint.partition(":")
    if not (module_name and colon and name):
        raise EntrypointError(
            f"entrypoint {entrypoint!r} must be package.module:NAME, as in documents.workflow:workflow"
        )
    if module_name.endswith(".py"):
        module_name = _file_module(Path(module_name), entrypoint)
    module = _import(module_name, entrypoint)
    return _instance(_find(module, name, entrypoint), name, entrypoint)


def _file_module(file: Path, entrypoint: str) -> str:
    """The module name of a file, whose folder goes on the path."""
    if not file.is_file():
        raise EntrypointError(f"entrypoint {entrypoint!r}: there is no file {file.resolve()}")
    add_source_path(str(file.resolve().parent))
    return file.stem


def _import(module_name: str, entrypoint: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            places = [part or str(Path.cwd()) for part in sys.path[:6]]
            raise EntrypointError(
                f"entrypoint {entrypoint!r}: no module {missing!r}. Looked in {', '.join(places)}"
                + (f" and {len(sys.path) - 6} more" if len(sys.path) > 6 else "")
            ) from error
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: importing {module_name} needs the module {missing!r}, which "
            f"isn't installed here ({_where(error)})"
        ) from error
    except SystemExit as error:
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: {module_name} calls sys.exit({error.code!r}) when it is imported; "
            'put what it runs under if __name__ == "__main__"'
        ) from error
    except Exception as error:
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: importing {module_name} raised "
            f"{type(error).__name__}: {error} ({_where(error)})"
        ) from error


def _where(error: BaseException) -> str:
    """The innermost line of user code."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "no line known"


def _find(module: ModuleType, name: str, entrypoint: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        workflows = [
            key
            for key, value in vars(module).items()
            if isinstance(value, Workflow)
            or (
                isinstance(value, type)
                and issubclass(value, Workflow)
                and value.__module__ == module.__name__
            )
        ]
        close = difflib.get_close_matches(name, [k for k in vars(module) if not k.startswith("_")], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        has = f" (workflows in it: {', '.join(workflows)})" if workflows else ""
        file = getattr(module, "__file__", None)
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: {module.__name__} ({file}) has no {name!r}{has}{hint}"
        ) from None


def _instance(found: Any, name: str, entrypoint: str) -> Workflow[Any]:
    if isinstance(found, Workflow):
        return found
    is_class = isinstance(found, type)
    if (is_class and not issubclass(found, Workflow)) or not callable(found):
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: {name} is {_describe(found)}, not a Workflow class, "
            "a Workflow instance or a function that returns one"
        )
    what = "class" if is_class else "function"
    needed = _needed(found)
    if needed:
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: the {what} {name} needs arguments ({', '.join(needed)}); give "
            "them defaults, or name an instance or a function without arguments"
        )
    try:
        made = found()
    except Exception as error:
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: calling {name}() raised {type(error).__name__}: {error} ({_where(error)})"
        ) from error
    if not isinstance(made, Workflow):
        if inspect.iscoroutine(made):
            made.close()
            raise EntrypointError(f"entrypoint {entrypoint!r}: {name} is async; make it a plain function")
        raise EntrypointError(
            f"entrypoint {entrypoint!r}: {name}() returned {_describe(made)}, not a Workflow instance"
        )
    return made


def _needed(found: Any) -> list[str]:
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # something built in, which has none to show
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def _describe(found: Any) -> str:
    if found is None:
        return "None"
    if isinstance(found, type):
        return f"the class {found.__module__}.{found.__qualname__}"
    return f"a {type(found).__name__}"
