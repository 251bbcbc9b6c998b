"""How benchmarks are sampled and judged; nothing here measures."""

import json
from pathlib import Path

import pytest
from benchmarks import results
from benchmarks.benchmark import Benchmark, Goal
from benchmarks.rounds import Outcome, Spread, measure
from benchmarks.table import goal_text, ratio


def test_sides_are_sampled_in_turn_and_the_other_way_round_in_the_next_round() -> None:
    taken: list[str] = []

    def side(name: str):
        return lambda: taken.append(name) or 1.0

    outcome = measure(Benchmark("b", "", "", {"a": side("a"), "b": side("b")}), rounds=3)
    assert "".join(taken) == "ab" + "ba" + "ab" + "ba"
    assert outcome.samples == {"a": [1.0] * 3, "b": [1.0] * 3}  # the first round only warms up


def test_what_takes_long_is_sampled_less_often() -> None:
    benchmark = Benchmark("b", "", "", {"a": lambda: 1.0}, rounds=2)
    assert [len(measure(benchmark, rounds).samples["a"]) for rounds in (1, 5)] == [1, 2]


def test_a_goal_is_judged_by_the_ratio_within_each_round() -> None:
    # A machine that is ten times slower in one round is so on both sides.
    samples = {"ours": [1.0, 10.0, 1.0], "theirs": [20.0, 200.0, 20.0]}
    goals = [Goal("ours", 1 / 20, beside="theirs", upper=True), Goal("ours", 0.5)]
    ratios, absolute = Outcome(Benchmark("b", "", "", {}, goals), samples).verdicts
    assert (ratios.reached, ratios.met) == (1 / 20, True)
    assert (absolute.reached, absolute.met) == (1.0, False)


def test_the_upper_quartile_can_miss_what_the_median_meets() -> None:
    samples = {"ours": [1.0, 1.0, 1.0, 3.0, 3.0], "theirs": [10.0] * 5}
    goals = [Goal("ours", 0.2, beside="theirs"), Goal("ours", 0.2, beside="theirs", upper=True)]
    assert [v.met for v in Outcome(Benchmark("b", "", "", {}, goals), samples).verdicts] == [True, False]


def test_what_a_store_adds_is_judged_without_the_work_itself() -> None:
    samples = {"ours": [30.0, 300.0], "memory": [10.0, 100.0], "bare": [100.0, 1000.0]}
    goal = Goal("ours", 0.2, beside="bare", less="memory")
    (verdict,) = Outcome(Benchmark("b", "", "", {}, [goal]), samples).verdicts
    assert (verdict.reached, verdict.met) == (0.2, True)
    assert goal_text(goal, "µs") == "≤ 1/5 of bare, less memory"


def test_a_single_sample_is_its_own_quartiles() -> None:
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


def test_goals_read_as_they_are_spoken() -> None:
    assert goal_text(Goal("a", 1 / 20, beside="b"), "µs") == "≤ 1/20 of b"
    assert goal_text(Goal("a", 12), "KB") == "≤ 12 KB"
    assert (ratio(1.3), ratio(0.04)) == ("1.3 ×", "1/25")


def test_results_are_read_back_and_those_of_other_sides_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "versions", lambda: {"perdure": "1"})
    one = Benchmark("one", "", "µs", {"a": float, "b": float}, [Goal("a", 0.5, beside="b")])
    two = Benchmark("two", "", "µs", {"a": float})
    outcomes = [Outcome(one, {"a": [1.0, 2.0], "b": [4.0, 4.0]}), Outcome(two, {"a": [3.0]})]
    path = tmp_path / "results.json"
    assert results.read(path, {}) == {}
    results.write(outcomes, path)
    renamed = Benchmark("two", "", "µs", {"other": float})
    assert results.read(path, {"one": one, "two": renamed}) == {"one": outcomes[0]}
    document = json.loads(path.read_text())
    document["machine"]["cores"] += 1
    path.write_text(json.dumps(document))
    assert results.read(path, {"one": one, "two": two}) == {}
