"""A script isn't all or nothing: what keeps each one from stopping half-way is held here, for every file."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from perdure.store.scripts import NAMES

WRITES = frozenset(
    [
        "APPEND",
        "DEL",
        "EXPIRE",
        "HDEL",
        "HINCRBY",
        "HSET",
        "HSETNX",
        "INCR",
        "LPUSH",
        "LTRIM",
        "PERSIST",
        "PEXPIRE",
        "RENAME",
        "RPUSH",
        "SADD",
        "SET",
        "UNLINK",
        "XADD",
        "XDEL",
        "XTRIM",
        "ZADD",
        "ZREMRANGEBYRANK",
    ]
)
READS = frozenset(
    [
        "EXISTS",
        "GET",
        "GETRANGE",
        "HGET",
        "HGETALL",
        "HKEYS",
        "HMGET",
        "LLEN",
        "LRANGE",
        "PTTL",
        "STRLEN",
        "TIME",
        "XLEN",
        "XRANGE",
        "XREVRANGE",
        "ZSCORE",
    ]
)
# Refusals that a full server answers to a script's first write: those must be the first.
DENY_OOM = frozenset({"HSET", "RPUSH", "SET", "XADD"})

FOLDER = resources.files("perdure.store").joinpath("lua")
FILES = sorted(entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".lua"))


def source(name: str) -> str:
    return FOLDER.joinpath(name).read_text()


def code(text: str) -> str:
    return re.sub(r"--.*", "", text)


def problems(text: str, *, first: str | None = None) -> list[str]:
    """What is wrong with a script."""
    found = []
    head = text[: len(text) - len(text.lstrip("-"))] + text.split("\n\n", 1)[0]
    for part in ("KEYS", "ARGV", "reply"):
        if not re.search(rf"^-- {part} ", head, re.MULTILINE):
            found.append(f"its head has no line for {part}")
    body = code(text)
    if re.search(r"\bcjson\b|\bcmsgpack\b", body):
        found.append("decodes in Lua: user data must stay opaque")
    if re.search(r"\b(os|io|math\.random|loadstring)\b\.?\w*\(", body):
        found.append("uses what a script may not")
    calls = [
        (match.start(), match[1], match[2]) for match in re.finditer(r"redis\.(p?call)\('([A-Z]+)'", body)
    ]
    if len(calls) != len(re.findall(r"redis\.p?call\(", body)):
        found.append("calls a command that isn't written out")
    for _, how, command in calls:
        if command not in WRITES | READS and (how, command) != ("pcall", "PUBLISH"):
            found.append(f"calls {command}, which this lint doesn't know (PUBLISH: by pcall)")
    writes = [(at, command) for at, how, command in calls if how == "call" and command in WRITES]
    if not writes:
        return found
    start = writes[0][0]
    if first is not None and writes[0][1] != first:
        found.append(f"its first write is {writes[0][1]}, not {first}")
    found += [
        f"reads ({command}) after the first write"
        for at, _, command in calls
        if at > start and command in READS
    ]
    if re.search(r"\btonumber\(|\berror\(|redis\.error_reply", body[start:]):
        found.append("parses or raises after the first write")
    if re.search(r"return \{'(?!OK|OUTCOME)", body[start:]):
        found.append("refuses after the first write")
    return found


def test_every_script_is_known_by_name() -> None:
    assert [f"{name}.lua" for name in sorted(NAMES)] == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_script_checks_everything_before_it_writes(name: str) -> None:
    first = {
        "commit.lua": "RPUSH",
        "init.lua": "RPUSH",
        "renew.lua": "PEXPIRE",
        "cut.lua": "PERSIST",
        "send.lua": "XADD",
    }.get(name)
    assert problems(source(name), first=first) == []


@pytest.mark.parametrize("name", sorted(set(FILES) - {"renew.lua", "cut.lua", "facts.lua"}))
def test_the_first_write_is_one_that_a_full_server_refuses(name: str) -> None:
    first = re.search(rf"redis\.call\('({'|'.join(WRITES)})'", code(source(name)))
    assert first is not None and first[1] in DENY_OOM


def test_facts_only_reads() -> None:
    assert set(re.findall(r"redis\.p?call\('([A-Z]+)'", source("facts.lua"))) <= READS


HEAD = "-- KEYS   1\n-- ARGV   1\n-- reply  OK 0\n\n"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("redis.call('HSET', KEYS[1], 'a', 1)\nredis.call('RPUSH', KEYS[2], ARGV[1])", "first write"),
        ("redis.call('RPUSH', KEYS[1], 1)\nredis.call('HGET', KEYS[2], 'a')", "reads (HGET)"),
        ("redis.call('RPUSH', KEYS[1], 1)\nlocal n = tonumber(ARGV[1])", "parses"),
        ("redis.call('RPUSH', KEYS[1], 1)\nreturn {'FENCED', 1}", "refuses"),
        ("redis.call('RPUSH', KEYS[1], 1)\nredis.call('PUBLISH', 'c', 'x')", "PUBLISH"),
        ("local x = cjson.decode(ARGV[1])", "opaque"),
        ("redis.call(command, KEYS[1])", "written out"),
    ],
)
def test_the_lint_finds(body: str, wrong: str) -> None:
    assert any(wrong in problem for problem in problems(HEAD + body, first="RPUSH"))


def test_the_lint_wants_a_head() -> None:
    assert len(problems("return {'OK', 0}")) == 3
