"""A WorkflowRun as a file: YAML, with errors that say where, what is wrong, and what instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from perdure.control.api import API_VERSION, KIND, WorkflowRun
from perdure.control.problems import Problem, explain
from perdure.errors import ManifestError


@dataclass(slots=True, frozen=True)
class Manifest:
    """One WorkflowRun, and the other documents that stand beside it, as they are."""

    run: WorkflowRun
    others: list[dict[str, Any]] = field(default_factory=list)

    def config_map(self, name: str) -> dict[str, str] | None:
        """The data of the ConfigMap of that name, if it stands in the same file."""
        for other in self.others:
            metadata = other.get("metadata")
            if (
                other.get("kind") == "ConfigMap"
                and isinstance(metadata, dict)
                and metadata.get("name") == name
            ):
                data = other.get("data") or {}
                return {str(key): str(value) for key, value in data.items()}
        return None


def load_manifest(path: Path | str) -> WorkflowRun:
    """The one WorkflowRun in the file. Raises ManifestError, which lists all that is wrong with it."""
    return read_manifest(path).run


def read_manifest(path: Path | str) -> Manifest:
    """The WorkflowRun in the file and the documents beside it. Raises ManifestError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ManifestError(
            f"{path}: can't be read: {reason}; give the path of a WorkflowRun manifest"
        ) from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, file: str = "manifest") -> Manifest:
    """As `read_manifest`, of text; `file` is what errors call it."""
    documents = list(_documents(text, file))
    runs = [one for one in documents if one.kind == KIND]
    if not runs:
        raise ManifestError(_no_run(documents, file))
    if len(runs) > 1:
        lines = ", ".join(str(one.line(())) for one in runs)
        raise ManifestError(
            f"{file}: holds {len(runs)} WorkflowRuns (lines {lines}); give each a file of its own"
        )
    document = runs[0]
    body = {key: value for key, value in document.body.items() if key != "status"}
    try:
        run = WorkflowRun.model_validate(body)
    except ValidationError as error:
        problems = explain(error, WorkflowRun)
        raise ManifestError("\n".join(_told(problem, document, file) for problem in problems)) from error
    return Manifest(run, [one.body for one in documents if one is not document])


@dataclass(slots=True, frozen=True)
class _Document:
    body: dict[str, Any]
    node: yaml.Node

    @property
    def kind(self) -> str:
        return str(self.body.get("kind", ""))

    def line(self, path: tuple[str | int, ...]) -> int:
        """Where `path` stands, or the nearest of its parents that is there; counted from 1."""
        node, mark = self.node, self.node.start_mark
        for part in path:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if pair is None:
                    break
                mark, node = pair[0].start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            else:
                break
        return int(mark.line) + 1


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date is a string, and a key stands once."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _documents(text: str, file: str) -> Iterator[_Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            _refuse_double_keys(node, file)
            body = loader.construct_document(node)
            if body is None:
                continue
            if not isinstance(body, dict):
                line = node.start_mark.line + 1
                raise ManifestError(
                    f"{file}:{line}: is of type {type(body).__name__}; a manifest is an object (key: value)"
                )
            yield _Document(body, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else file
        raise ManifestError(f"{where}: is not YAML: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestError(f"{file}: is not YAML: {error}") from error
    finally:
        loader.dispose()


def _refuse_double_keys(node: yaml.Node, file: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise ManifestError(
                        f"{file}:{line}: {key.value} stands here for the second time; keep one"
                    )
                seen.add(key.value)
            _refuse_double_keys(value, file)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_double_keys(value, file)


def _no_run(documents: list[_Document], file: str) -> str:
    kinds = [one.kind or "a document without kind" for one in documents]
    if not kinds:
        return f"{file}: is empty; it must hold one WorkflowRun (apiVersion: {API_VERSION}, kind: {KIND})"
    close = get_close_matches(KIND, kinds, n=1, cutoff=0.7)
    hint = (
        f"; did you mean kind: {KIND}?" if close else f"; add one (apiVersion: {API_VERSION}, kind: {KIND})"
    )
    return f"{file}: holds no WorkflowRun but {', '.join(kinds)}{hint}"


def _told(problem: Problem, document: _Document, file: str) -> str:
    return f"{file}:{document.line(problem.path)}: {problem}"
