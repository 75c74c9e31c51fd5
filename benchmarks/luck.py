"""How often the tests for luck call a random walk skill, how often they find a planted edge, and
how long they take.

    python benchmarks/luck.py [--json] [--worlds 1000] [--memory 0]

A world is a search: a few dozen trials over a year of days. Without an edge the share of worlds
called skill must be the test's nominal one, give or take three standard errors of a binomial; with
an edge in one trial most must be found, and that trial named. The bars are for walks, which
remember nothing; --memory shows how much too generous the tests are to returns that do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tradelib.research.bias import check_bias
from tradelib.research.luck import (
    backtest_overfitting,
    deflate,
    reality_check,
    superior_ability,
)
from tradelib.research.samples import random_candles
from tradelib.strategy.registry import strategy, strategy_names

PERIODS, TRIALS = 250, 24  # an odd number has a median trial, which PBO counts as overfitted
NOISE, EDGE = 0.01, 0.0035  # a day's deviation, and the planted mean: a yearly Sharpe ratio of 5.5
COMMON = 0.3  # share of the variance that all trials have in common, as parameters of one idea do
NOMINAL = 0.05


def make_bar(name: str, value: float, unit: str, target: float, *, at_least: bool = False) -> dict:
    holds = value >= target if at_least else value <= target
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "holds": holds}


def show_bars(told: dict, console: Console) -> None:
    for bar in told["bars"]:
        verdict = "holds" if bar["holds"] else "MISSED"
        console.print(f"{bar['name']}: {bar['value']}{bar['unit']}, {bar['target']}: {verdict}")


def world(random: np.random.Generator, edge: float, memory: float) -> np.ndarray:
    """Returns (periods, trials) of trials that resemble each other; memory: how much of a shock
    comes again a day later."""
    shocks = math.sqrt(1 - COMMON) * random.normal(size=(PERIODS + 1, TRIALS))
    shocks += math.sqrt(COMMON) * random.normal(size=(PERIODS + 1, 1))
    returns = NOISE * (shocks[1:] + memory * shocks[:-1])
    returns[:, 7] += edge
    return returns


def judge(returns: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    """1 where a test says skill and names the trial that was planted; and PBO itself."""
    white = reality_check(returns, random, replications=299)
    hansen = superior_ability(returns, random, replications=299)
    deflated = deflate(returns)
    overfitting = backtest_overfitting(returns, 10).probability
    return {
        "reality check": white.p_value <= NOMINAL,
        "superior ability": hansen.p_value <= NOMINAL,
        "deflated Sharpe ratio": deflated.probability > 1 - NOMINAL,
        "overfitting": overfitting,
        "named": white.best == hansen.best == deflated.best == 7,
    }


def rates(worlds: int, edge: float, memory: float, seed: int) -> dict[str, float]:
    found = [judge(world(random, edge, memory), random) for random in generators(worlds, seed)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def generators(count: int, seed: int) -> list[np.random.Generator]:
    return list(map(np.random.default_rng, np.random.SeedSequence(seed).spawn(count)))


def seconds(call: Callable[[], Any]) -> float:
    """The best of three, for what else the machine does only adds."""

    def once() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return min(once() for _ in range(3))


def timings() -> dict[str, float]:
    random = np.random.default_rng(1)
    wide, long = random.normal(0, 0.01, (2000, 1000)), random.normal(0, 0.01, (5000, 200))
    candles = random_candles(5000, seed=1)
    return {
        "overfitting, 1,000 trials": seconds(lambda: backtest_overfitting(wide)),
        "reality check, 200 trials": seconds(lambda: reality_check(long, random)),
        "bias of weighted": seconds(lambda: check_bias(strategy("weighted"), candles)),
    }


def bars_of(lucky: dict, skilled: dict, took: dict, biased: list[str], worlds: int) -> list[dict]:
    error = math.sqrt(NOMINAL * (1 - NOMINAL) / worlds)
    bars = []
    for name in ("reality check", "superior ability"):
        away = abs(lucky[name] - NOMINAL)
        bars.append(make_bar(f"{name}: walks called skill, away from 5 %", away, "", 3 * error))
    bars.append(
        make_bar(
            "deflated Sharpe ratio: walks called skill, at most",
            lucky["deflated Sharpe ratio"],
            "",
            NOMINAL,
        )
    )
    # PBO of one world scatters by about 0.25.
    away, allowed = abs(lucky["overfitting"] - 0.5), 3 * 0.25 / math.sqrt(worlds)
    bars.append(make_bar("overfitting of walks, away from a half", away, "", allowed))
    for name in ("reality check", "superior ability", "deflated Sharpe ratio", "named"):
        bars.append(make_bar(f"{name}: edges found", skilled[name], "", 0.9, at_least=True))
    bars.append(make_bar("overfitting of an edge, at most", skilled["overfitting"], "", 0.05))
    bars.append(make_bar("built-in strategies with a bias", len(biased), "", 0))
    limits = {"overfitting, 1,000 trials": 10.0, "reality check, 200 trials": 5.0,
              "bias of weighted": 2.0}  # fmt: skip
    bars += [make_bar(name, took[name], " s", limit) for name, limit in limits.items()]
    return bars


def run(worlds: int, memory: float) -> dict[str, Any]:
    lucky = rates(worlds, 0.0, memory, seed=1)
    skilled = rates(max(worlds // 5, 20), EDGE, memory, seed=2)
    took = timings()
    candles = random_candles(5000, seed=2)
    biased = [name for name in strategy_names() if not check_bias(strategy(name), candles).unbiased]
    bars = bars_of(lucky, skilled, took, biased, worlds)
    return {
        "worlds": worlds,
        "memory": memory,
        "walks": lucky,
        "edge": skilled,
        "seconds": took,
        "bars": bars,
    }


def show(told: dict[str, Any]) -> None:
    table = Table("share of worlds", "random walks", "a planted edge", box=None)
    for name, value in told["walks"].items():
        table.add_row(name, f"{value:.3f}", f"{told['edge'][name]:.3f}")
    console = Console()
    console.print(table)
    show_bars(told, console)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--memory", type=float, default=0.0)
    asked = parser.parse_args()
    told = run(asked.worlds, asked.memory)
    print(json.dumps(told)) if asked.json else show(told)
    return 0 if all(bar["holds"] for bar in told["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
