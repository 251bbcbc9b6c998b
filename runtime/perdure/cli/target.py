"""From the command line to a WorkflowRun: a manifest, `package.module:NAME` or `file.py:NAME`."""

from __future__ import annotations

import ast
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perdure.cli.errors import UsageError
from perdure.control.api import MAX_INPUT_BYTES, NAME, Metadata, WorkflowRef, WorkflowRun, WorkflowRunSpec
from perdure.control.manifest import read_manifest
from perdure.control.problems import explain

MANIFESTS = (".yaml", ".yml", ".json")
MAX_NAME = 52


@dataclass(slots=True, frozen=True)
class Target:
    """What to run.

    source_path: folders for the Python path, separated as in PATH. modules: files by name, of the
    ConfigMap that stands beside the run in its manifest.
    """

    run: WorkflowRun
    source_path: str
    modules: dict[str, str] | None = None


def read_target(target: str, *, name: str | None, given_input: str | None) -> Target:
    """Raises UsageError or ManifestError, which say what is wrong and where."""
    if Path(target).suffix in MANIFESTS:
        found = _from_manifest(Path(target))
    elif ":" in target:
        found = _from_entrypoint(target)
    else:
        raise UsageError(_what_was_meant(target))
    run = found.run
    if name is not None:
        run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"name": check_name(name)})})
    if given_input is not None:
        run = _with_input(run, parse_input(given_input))
    return Target(run, found.source_path, found.modules)


def _what_was_meant(target: str) -> str:
    path = Path(target)
    if path.suffix == ".py" and path.is_file():
        found = _workflows_in(path)
        which = " or ".join(f"{target}:{name}" for name in found) or f"{target}:NAME"
        return f"{target} is a file, which may hold several workflows: name one, as in {which}"
    there = sorted(str(one) for one in path.glob("*") if one.suffix in MANIFESTS) if path.is_dir() else []
    if path.is_dir():
        return f"{target} is a folder; give a manifest in it ({', '.join(there[:3]) or 'there is none'}) or file.py:NAME"
    return f"{target!r} is neither a manifest (a file that ends in .yaml) nor package.module:NAME nor file.py:NAME"


def _workflows_in(path: Path) -> list[str]:
    """Classes that look like workflows, without running the file."""
    try:
        tree = ast.parse(path.read_text())
    except (OSError, ValueError, SyntaxError):
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any("Workflow" in ast.unparse(base) for base in node.bases)
    ]


def check_name(name: str) -> str:
    """`name`, given by --name, if a run can have it. Raises UsageError."""
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise UsageError(
            f"--name {name!r}: use at most {MAX_NAME} lower-case letters, digits, '-' and '.', as in documents-1"
        )
    return name


def parse_input(given: str) -> dict[str, Any]:
    """The StartEvent's fields from JSON, or from the file that `@FILE` names."""
    return parse_fields(given, "--input", "the StartEvent's")


def parse_fields(given: str, where: str, whose: str) -> dict[str, Any]:
    """An event's fields from JSON or `@FILE`; `where` it was given and `whose` they are is for errors."""
    text = given
    if given.startswith("@"):
        where = f"{where} {given}"
        try:
            text = Path(given[1:]).read_text()
        except OSError as error:
            raise UsageError(f"{where}: can't read the file: {error.strerror}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        hint = "" if given.startswith("@") else "; for a file, give @FILE"
        raise UsageError(f"{where} is not JSON: {error}{hint}") from error
    if not isinstance(value, dict):
        raise UsageError(
            f'{where} must be a JSON object with {whose} fields, as in \'{{"folder": "docs"}}\', '
            f"not {json.dumps(value)[:60]}"
        )
    return value


def _from_manifest(path: Path) -> Target:
    if not path.is_file():
        raise UsageError(f"there is no manifest {path}")
    manifest = read_manifest(path)
    source = manifest.run.spec.workflow.source
    modules = manifest.config_map(source.config_map_ref.name) if source is not None else None
    # Modules lie in the ConfigMap, else beside the manifest, or where the command is given.
    return Target(manifest.run, os.pathsep.join([str(path.resolve().parent), str(Path.cwd())]), modules)


def _from_entrypoint(target: str) -> Target:
    module, _, attribute = target.rpartition(":")
    folder = Path.cwd()
    if module.endswith(".py"):
        file = Path(module)
        if not file.is_file():
            raise UsageError(f"there is no file {module}")
        if "." in file.stem:
            raise UsageError(f"{module} can't be imported: a module's name has no dots; rename the file")
        folder, module = file.resolve().parent, file.stem
    try:
        workflow = WorkflowRef(entrypoint=f"{module}:{attribute}")
        run = WorkflowRun(
            metadata=Metadata(name=_name_for(module, attribute)), spec=WorkflowRunSpec(workflow=workflow)
        )
    except ValidationError as error:
        raise UsageError(f"{target!r}: {explain(error, WorkflowRef, 'entrypoint')[0].message}") from error
    return Target(run, str(folder))


def _name_for(module: str, attribute: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{module.rpartition('.')[2]}-{attribute}".lower())
    return words[:MAX_NAME].strip("-") or "run"


def _with_input(run: WorkflowRun, fields: dict[str, Any]) -> WorkflowRun:
    """`fields` over the manifest's own."""
    spec = run.spec.model_dump(by_alias=True, exclude_unset=True)
    spec["input"] = {**run.spec.input, **fields}
    try:
        return run.model_copy(update={"spec": WorkflowRunSpec.model_validate(spec)})
    except ValidationError as error:
        problem = explain(error, WorkflowRunSpec)[0]
        raise UsageError(f"--input: {problem.message} (at most {MAX_INPUT_BYTES} bytes)") from error
