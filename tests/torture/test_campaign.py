"""A campaign: repeatable, told in full, and clean."""

import json
from dataclasses import replace

import pytest

from tests.desks import desk_command
from tradelib.errors import InvalidInput
from tradelib.torture.campaign import Plan, run_campaign
from tradelib.torture.schedule import FOCUSES, Act, draw_schedule

SCHEDULES = 40


@pytest.fixture(scope="module")
def report():
    return run_campaign(Plan(SCHEDULES, seed=7))


def test_nothing_is_doubled_lost_left_open_or_different(report):
    assert {name: count for name, count in report.counted.items() if count} == {}
    assert report.schedules == SCHEDULES


def test_one_quiet_reconciliation_settles_everything(report):
    assert set(report.passes) == {1}


def test_processes_are_killed_and_put_to_sleep_between_all_kinds_of_effects(report):
    phases = {name.split()[2] for name in report.signals}
    assert phases == {"begin", "commit", "committed", "request", "sent", "answered"}
    assert min(report.kills, report.sleeps, report.orders) >= SCHEDULES
    assert len(report.faults) >= 12


def test_a_seed_tells_the_whole_schedule():
    for focus in FOCUSES:
        assert draw_schedule(3, focus) == draw_schedule(3, focus) != draw_schedule(4, focus)


def test_a_schedule_happens_again_the_same_from_its_own_seed():
    plan = Plan(6, seed=21)
    several = run_campaign(replace(plan, workers=2))
    alone = [run_campaign(Plan(1, seed)) for seed in plan.seeds()[2:4]]
    for one, seed in zip(alone, plan.seeds()[2:4], strict=True):
        told = next(result for result in several.results if result.seed == seed)
        again = one.results[0]
        assert (told.signals, told.faults, told.acts) == (again.signals, again.faults, again.acts)
        assert told.events == again.events


def test_every_schedule_executes_and_reconciles():
    for seed in range(20):
        kinds = {step.kind for step in draw_schedule(seed).steps if isinstance(step, Act)}
        assert {"execute", "reconcile"} <= kinds


def test_an_unknown_focus_is_refused_with_the_nearest():
    with pytest.raises(InvalidInput, match="zombies"):
        run_campaign(Plan(1, 1, focus="zombie"))


def test_the_command_tells_a_campaign_as_json(home):
    done = desk_command("torture", "--schedules", 1, "--seed", 4, "--json", home=home)
    told = json.loads(done.stdout)
    assert (done.returncode, told["schedules"], told["duplicates"]) == (0, 1, 0)
