"""What Perdure costs, measured beside what it is compared with: `python -m benchmarks --help`.

Each benchmark is a module with a `BENCHMARK`, listed in `suite`. Its sides are sampled in turn, one
after the other in each round and in the other order in the next, so that what else the machine does
touches them alike; what is judged is the ratio of two sides within a round.
"""
