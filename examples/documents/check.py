"""Checks what a run on this machine left: the result, the plain texts, and what was converted twice.

    python examples/documents/check.py .perdure/runs/documents/run.json

Exits with 1 when anything is missing, wrong, or was converted again after it had been recorded.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from documents import Document, find_documents, text_file, to_text

WORKERS = 4


def check(run: dict[str, Any]) -> list[str]:
    """What is wrong with the run. Prints what was done twice."""
    given, status = run["spec"]["input"], run["status"]
    documents = find_documents(given.get("folder", ""), given["limit"])
    result = status.get("result") or {}
    output = Path(given["output"])
    problems = [
        f"{document.name}: its plain text is missing or wrong"
        for document in documents
        if document.name not in result.get("failures", []) and not _is_right(document, output)
    ]
    if result.get("documents") != len(documents):
        problems.append(f"the result has {result.get('documents')} documents, and there are {len(documents)}")
    twice, again = converted_twice(output / "conversions.log")
    kills = status["attempt"] - 1
    print(f"documents converted twice: {twice} (takeovers: {kills}, workers: {WORKERS})")
    print(f"documents converted again after they had been recorded: {again}")
    if again:
        problems.append("a document was converted again though its store.append had returned")
    if twice > WORKERS * kills:
        problems.append(f"more than {WORKERS} documents for each takeover were converted twice")
    return problems


def _is_right(document: Document, output: Path) -> bool:
    path = text_file(output, document.name)
    return path.exists() and path.read_text(encoding="utf-8") == to_text(document)


def converted_twice(log: Path) -> tuple[int, int]:
    """How many documents were converted more than once, and how many of them after they were recorded."""
    times: Counter[str] = Counter()
    recorded: set[str] = set()
    again: set[str] = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        what, name = line.split(" ", 1)
        if what == "recorded":
            recorded.add(name)
        else:
            times[name] += 1
            if name in recorded:
                again.add(name)
    return sum(count > 1 for count in times.values()), len(again)


if __name__ == "__main__":
    found = check(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    for problem in found[:10]:
        print(f"WRONG: {problem}", file=sys.stderr)
    print("the result is incomplete or wrong" if found else "the result is complete and right")
    sys.exit(bool(found))
