"""All benchmarks, in the order of the table."""

from __future__ import annotations

from benchmarks import (
    chain,
    chain_state,
    fanout,
    growth_collect,
    growth_list,
    idle,
    imports,
    store_bytes,
    store_chain,
    store_fanout,
    store_peers,
    store_resume,
    store_saturation,
)

_ENGINE = [
    module.BENCHMARK for module in (chain, chain_state, fanout, growth_list, growth_collect, imports, idle)
]
_STORE = [
    store_chain.BENCHMARK,
    store_chain.CPU,
    store_fanout.BENCHMARK,
    store_fanout.COMMITS,
    store_bytes.SET,
    store_bytes.APPEND,
    store_bytes.APPEND_TIME,
    store_resume.BENCHMARK,
    store_peers.ALWAYS,
    store_peers.EVERYSEC,
    store_peers.RESUME,
    store_saturation.COMMITS,
    store_saturation.SHORT,
]
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*_ENGINE, *_STORE)}
