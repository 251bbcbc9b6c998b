"""`perdure export` and `perdure import`: one run into a file, and out of it where nothing is yet."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from perdure.cli.archive import Archive, load, save
from perdure.cli.connect import connect
from perdure.cli.errors import UsageError
from perdure.cli.place import Place, find
from perdure.cli.target import Target, check_name
from perdure.control.api import Metadata, WorkflowRun
from perdure.control.problems import explain
from perdure.control.times import to_rfc3339
from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.local.embedded import EmbeddedRedis
from perdure.local.state import NAMESPACE, RunFolder
from perdure.store.dump import Dump, write
from perdure.store.keys import store_id
from perdure.store.records import check
from perdure.store.redis import RedisStore

IMPORTED = "Imported"


def export(name: str, file: Path, root: Path, redis_url: str | None, namespace: str) -> list[str]:
    """Write the run's state at one moment to `file`; lines to tell. The run goes on undisturbed.

    Raises UsageError, LocalError, StoreError.
    """
    if file.exists():
        raise UsageError(f"{file} exists: name a file that doesn't, or remove it")
    place, dump, identity = asyncio.run(_read(name, root, redis_url, namespace))
    source = place.folder.source if place.folder is not None else None
    modules = {one.name: one.read_text() for one in source.iterdir()} if source and source.is_dir() else {}
    archive = Archive(
        namespace=place.namespace,
        uid=place.uid,
        store_id=identity,
        exported_at=to_rfc3339(time.time()),
        dump=dump,
        run=place.run.to_json() if place.run is not None else None,
        modules=modules,
    )
    save(archive, file)
    size = file.stat().st_size
    return [
        *_soundness(dump),
        f"{file}: run '{name}' as of seq {dump.meta.seq}, {size:,} bytes. It holds the run's input, events and state.",
    ]


async def _read(name: str, root: Path, redis_url: str | None, namespace: str) -> tuple[Place, Dump, str]:
    async with find(name, root, redis_url, namespace) as place:
        return place, await place.dump(), await place.store.identity(place.namespace) or ""


def bring_in(
    file: Path, root: Path, redis_url: str | None, *, name: str | None, target: Target | None
) -> list[str]:
    """Make a run of this machine, with a uid of its own, from `file`; lines to tell.

    name: of the new run, else its old one. target: what it runs, where the file doesn't say.
    Raises UsageError, LocalError, StoreError.
    """
    archive = load(file)
    run = _resource(archive, file, name, target)
    folder = RunFolder(root, run.metadata.name)
    uid = str(uuid.uuid4())
    with folder.locked():
        if (folder.path / "run.json").exists():
            raise UsageError(
                f"there is a run '{folder.name}' under {root} already: give this one another --name"
            )
        folder.clear()
        asyncio.run(_fill(folder, redis_url, uid, archive.dump))
        modules = archive.modules or (target.modules if target is not None else None)
        folder.create(run, modules or None, uid=uid)
    goes_on = "has ended, and its result is told" if archive.dump.meta.outcome is not None else "goes on"
    return [
        *_soundness(archive.dump),
        f"Run '{folder.name}' is there as of seq {archive.dump.meta.seq}: it {goes_on} by"
        f" perdure run TARGET --name {folder.name}{' --redis URL' if redis_url else ''}",
    ]


def restore(file: Path, redis_url: str) -> list[str]:
    """Put the run back where it was, under its namespace and uid; lines to tell. Raises UsageError, StoreError."""
    archive = load(file)
    where = asyncio.run(_put_back(archive, redis_url))
    return [
        *_soundness(archive.dump),
        f"{where}, namespace {archive.namespace}, uid {archive.uid}: restored as of seq {archive.dump.meta.seq};"
        f" what was done after {archive.exported_at} is done again",
    ]


async def _put_back(archive: Archive, redis_url: str) -> str:
    store, _ = await connect(redis_url)
    try:
        if archive.store_id:
            # Who knows the run by its store's identity must find that again; another store's own stays.
            async with store.link() as link:
                await link.call("SET", store_id(archive.namespace), archive.store_id, "NX")
        await _write(store, archive.namespace, archive.uid, archive.dump)
        return store.where
    finally:
        await store.close()


async def _fill(folder: RunFolder, redis_url: str | None, uid: str, dump: Dump) -> None:
    async with _store(folder, redis_url) as store:
        await _write(store, NAMESPACE, uid, dump)


async def _write(store: RedisStore, namespace: str, uid: str, dump: Dump) -> None:
    if not await write(store, namespace, uid, _unheld(dump)):
        raise UsageError(
            f"{store.where} has state of run {uid} in namespace {namespace} already: it stays as it is"
        )


def _unheld(dump: Dump) -> Dump:
    """Nobody's, at an epoch that nobody has used: whoever wrote the original can't write this one."""
    fields = {name: value for name, value in dump.fields.items() if name not in ("leaseUntil", "notified")}
    fields |= {
        "epoch": str(dump.meta.epoch + 1).encode(),
        "cause": IMPORTED.encode(),
        **dict.fromkeys(("holder", "released", "wakeAt", "storeRunId"), b""),
    }
    return replace(dump, fields=fields)


def _resource(archive: Archive, file: Path, name: str | None, target: Target | None) -> WorkflowRun:
    if target is not None:
        found = target.run
    elif archive.run is not None:
        try:
            found = WorkflowRun.model_validate(archive.run, strict=False)
        except ValidationError as error:
            raise UsageError(
                f"{file} was written by another version of Perdure: {explain(error, WorkflowRun)[0]}"
            ) from error
    else:
        raise UsageError(
            f"{file} doesn't say what code it runs: add --target with a manifest, package.module:NAME or file.py:NAME"
        )
    return found.model_copy(
        update={"metadata": Metadata(name=check_name(name) if name is not None else found.metadata.name)}
    )


def _soundness(dump: Dump) -> list[str]:
    """What is broken goes into the file as it is: that is what a report of it is for."""
    try:
        check(dump.loaded, None)
    except (CheckpointCorruptError, IncompatibleError) as error:
        return [f"Warning: the state isn't sound, and can't be resumed: {error}"]
    return []


@contextlib.asynccontextmanager
async def _store(folder: RunFolder, redis_url: str | None) -> AsyncIterator[RedisStore]:
    """Where the state of a new run of this folder goes."""
    embedded = EmbeddedRedis(folder.redis)
    try:
        if redis_url is None:
            embedded.start()
        store, _ = await connect(redis_url or embedded.url)
        try:
            yield store
        finally:
            await store.close()
        if redis_url is not None:
            folder.note_store(store.where)
    finally:
        embedded.stop()
