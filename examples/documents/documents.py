"""Converts a folder of documents to plain text and indexes them: a long run of many small steps.

By default the documents are the ones that every Python brings: the topics of the language reference,
and the documentation of the standard library's modules.
"""

import asyncio
import inspect
import re
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent

TOPIC = "topic:"


class Input(StartEvent):
    folder: str = Field(default="", description="documents to convert; empty for Python's own")
    limit: Annotated[int, Field(ge=1)] = 320
    delay: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="seconds that each document takes more"
    )
    output: str = Field(default="", description="where to write the plain texts; empty for nowhere")


class Document(Event):
    name: str
    path: str


class Converted(Event):
    name: str
    words: int = 0
    terms: list[str] = Field(default_factory=list)
    problem: str = ""


class Summary(StopEvent):
    documents: int
    words: int
    failures: list[str]
    longest: list[tuple[str, int]]
    terms: int


class Documents(Workflow):
    @step
    async def find(self, ctx: Context, ev: Input) -> list[Document]:
        start_over(ev.output)
        await ctx.store.set("settings", {"delay": ev.delay, "output": ev.output})
        return find_documents(ev.folder, ev.limit)

    @step(num_workers=4)
    async def convert(self, ctx: Context, document: Document) -> Converted:
        for known in await ctx.store.get("converted", default=[]):
            if known["name"] == document.name:
                return Converted(**known)
        settings = await ctx.store.get("settings")
        await asyncio.sleep(settings["delay"])
        converted: dict[str, Any] = {"name": document.name}
        try:
            text = await asyncio.to_thread(to_text, document)
            write(settings["output"], document.name, text)
            words = re.findall(r"[a-z]{3,}", text.lower())
            converted |= {"words": len(words), "terms": [term for term, _ in Counter(words).most_common(5)]}
        except (OSError, ValueError) as error:
            converted["problem"] = f"{type(error).__name__}: {error}"
        await ctx.store.append("converted", converted)
        note(settings["output"], f"recorded {document.name}")
        return Converted(**converted)

    @step
    async def index(self, ctx: Context, documents: list[Converted]) -> Summary:
        by_term: dict[str, list[str]] = {}
        for document in sorted(documents, key=lambda d: d.name):
            for term in document.terms:
                by_term.setdefault(term, []).append(document.name)
        await ctx.store.set("index", by_term)
        longest = sorted(documents, key=lambda d: (-d.words, d.name))[:10]
        return Summary(
            documents=len(documents),
            words=sum(d.words for d in documents),
            failures=sorted(d.name for d in documents if d.problem),
            longest=[(d.name, d.words) for d in longest],
            terms=len(by_term),
        )


def find_documents(folder: str, limit: int) -> list[Document]:
    """At most `limit` documents of `folder`, or of those that come with Python."""
    if folder:
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [Document(name=str(p.relative_to(folder)), path=str(p)) for p in files[:limit]]
    from pydoc_data.topics import topics

    found = [Document(name=f"{TOPIC}{name}", path=f"{TOPIC}{name}") for name in sorted(topics)]
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if not skipped & set(relative.parts):
            found.append(Document(name=str(relative), path=str(path)))
    return found[:limit]


def to_text(document: Document) -> str:
    """The document's text: a topic as it is, of a Python module its docstrings, of all else its words."""
    if document.path.startswith(TOPIC):
        from pydoc_data.topics import topics

        return str(topics[document.path.removeprefix(TOPIC)])
    source = Path(document.path).read_text(encoding="utf-8")
    if document.path.endswith(".py"):
        return "\n\n".join(inspect.cleandoc(text) for text in re.findall(r'"""(.*?)"""', source, re.DOTALL))
    return re.sub(r"<[^>]+>", " ", source)


def start_over(output: str) -> None:
    """Leave nothing of an earlier run in the folder for the plain texts."""
    if output:
        for path in (*Path(output).glob("*.txt"), Path(output, "conversions.log")):
            path.unlink(missing_ok=True)


def text_file(output: Path, name: str) -> Path:
    return output / (re.sub(r"[^\w.-]", "_", name) + ".txt")


def write(output: str, name: str, text: str) -> None:
    if output:
        target = text_file(Path(output), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        note(output, f"converted {name}")


def note(output: str, line: str) -> None:
    if output:
        with Path(output, "conversions.log").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
