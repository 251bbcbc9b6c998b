"""All benchmarks, in the order of the table."""

from __future__ import annotations

from benchmarks import chain, chain_state, fanout, growth_collect, growth_list, idle, imports

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (chain, chain_state, fanout, growth_list, growth_collect, imports, idle)
}
