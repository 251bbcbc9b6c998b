"""Checks what a demo run left: the result against a conversion of its own, and what was done twice."""

import json
import sys
from collections import Counter
from pathlib import Path

from documents import Converted, Document, find_documents, to_text


def main(status_file: str, output: str) -> int:
    status = json.loads(Path(status_file).read_text(encoding="utf-8"))
    spec_limit = int(sys.argv[3]) if len(sys.argv) > 3 else 320
    documents = find_documents("", spec_limit)
    problems = check(status, documents, Path(output))
    for problem in problems:
        print(f"WRONG: {problem}")
    return 1 if problems else 0


def check(status: dict, documents: list[Document], output: Path) -> list[str]:
    """What is wrong with the run; prints what was done twice."""
    problems = []
    result = status.get("result") or {}
    if result.get("documents") != len(documents):
        problems.append(f"the result has {result.get('documents')} documents, there are {len(documents)}")
    texts = {path.stem: path for path in output.glob("*.txt")}
    missing = len(documents) - len(result.get("failures", [])) - len(texts)
    if missing:
        problems.append(f"{missing} plain texts are missing in {output}")
    started: Counter[str] = Counter()
    recorded: set[str] = set()
    again: set[str] = set()
    for line in (output / "conversions.log").read_text(encoding="utf-8").splitlines():
        what, name = line.split(" ", 1)
        if what == "recorded":
            recorded.add(name)
        else:
            started[name] += 1
            if name in recorded:
                again.add(name)
    twice = [name for name, count in started.items() if count > 1]
    kills = max(0, int(status.get("attempt", 1)) - 1)
    print(f"documents converted twice: {len(twice)}, of those that were recorded: {len(again)}")
    if again:
        problems.append(f"converted again though they were recorded: {sorted(again)}")
    if len(twice) > 4 * kills:
        problems.append(f"{len(twice)} documents were converted twice by {kills} kills of 4 workers")
    return problems


__all__ = ["Converted", "check", "to_text"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
