"""Luck: published examples, slow references, and how often luck is called skill."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tradelib.errors import InvalidInput
from tradelib.research.luck import (
    SharpeSample,
    backtest_overfitting,
    block_length_for,
    deflate,
    deflated_sharpe,
    effective_trials,
    expected_max_sharpe,
    min_track_record,
    probabilistic_sharpe,
    reality_check,
    sharpe_ratios,
    sharpe_sample,
    stationary_bootstrap,
    superior_ability,
)


def noise(periods, trials, seed, edge=0.0):
    """Normal returns of deviation 1 %, the first trial with an edge added."""
    returns = np.random.default_rng(seed).normal(0, 0.01, (periods, trials))
    returns[:, 0] += edge
    return returns


# One Sharpe ratio.


@pytest.mark.parametrize(
    ("skew", "kurtosis", "probability"), [(-2.448, 10.164, 0.913), (0, 3, 0.981)]
)
def test_the_published_probability_of_a_hedge_funds_two_years(skew, kurtosis, probability):
    fund = SharpeSample(0.036 / 0.079, 24, skew, kurtosis)
    assert probabilistic_sharpe(fund) == pytest.approx(probability, abs=5e-4)


@pytest.mark.parametrize(
    ("a_year", "skew", "kurtosis", "years"),
    [(252, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_the_published_lengths_of_a_track_record(a_year, skew, kurtosis, years):
    """A yearly Sharpe ratio of 2 against 1, by day, week and month, and by month with fat tails."""
    sample = SharpeSample(2 / math.sqrt(a_year), 100, skew, kurtosis)
    found = min_track_record(sample, 1 / math.sqrt(a_year)) / a_year
    assert found == pytest.approx(years, abs=5e-3)


def test_at_its_least_length_a_record_has_the_confidence_asked_for():
    sample = SharpeSample(0.08, 100, -1.2, 7.0)
    periods = min_track_record(sample, 0.03, 0.9)
    longer = SharpeSample(0.08, round(periods), -1.2, 7.0)
    assert probabilistic_sharpe(longer, 0.03) == pytest.approx(0.9, abs=1e-3)
    assert min_track_record(sample, 0.08) == math.inf


def test_the_moments_are_scipys():
    values = np.random.default_rng(2).standard_t(6, 400) * 0.01 + 0.001
    sample = sharpe_sample(values)
    assert sample.sharpe == pytest.approx(values.mean() / values.std(ddof=1))
    assert sample.skew == pytest.approx(stats.skew(values))
    assert sample.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False))
    assert sample.periods == 400


def test_a_trial_that_never_moves_has_the_sharpe_ratio_zero():
    returns = np.column_stack([np.zeros(50), np.full(50, 0.1), noise(50, 1, 3)[:, 0]])
    assert sharpe_ratios(returns)[:2].tolist() == [0, 0]
    assert sharpe_ratios(returns)[2] != 0


# The best of many.


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "probability"),
    [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)],
)
def test_the_published_deflated_sharpe_ratios(trials, skew, kurtosis, probability):
    """2.5 a year over 1,250 of 250 days, chosen among trials whose yearly ratios vary by 1/2."""
    sample = SharpeSample(2.5 / math.sqrt(250), 1250, skew, kurtosis)
    assert deflated_sharpe(sample, trials, 0.5 / 250) == pytest.approx(probability, abs=5e-5)
    if trials == 100:
        assert expected_max_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)


@pytest.mark.parametrize("trials", [5, 50, 500])
def test_the_expected_best_of_normal_draws_is_near_their_mean_maximum(trials):
    drawn = np.random.default_rng(4).normal(0, 0.2, (4000, trials)).max(axis=1)
    assert expected_max_sharpe(trials, 0.04) == pytest.approx(drawn.mean(), rel=0.05)


def test_one_trial_expects_nothing_and_more_expect_more():
    expected = [expected_max_sharpe(trials, 1.0) for trials in (1, 1.1, 1.5, 2, 10, 1e6)]
    assert expected[0] == 0
    assert expected == sorted(expected)


def test_trials_count_by_their_mean_correlation():
    random = np.random.default_rng(5)
    returns = random.normal(size=(300, 8)) + 2 * random.normal(size=(300, 1))
    correlations = np.corrcoef(returns.T)
    mean = correlations[np.triu_indices(8, 1)].mean()
    assert effective_trials(returns) == pytest.approx(mean + (1 - mean) * 8)
    assert effective_trials(np.repeat(returns[:, :1], 5, axis=1)) == pytest.approx(1)
    assert effective_trials(np.column_stack([returns, np.zeros(300)])) == pytest.approx(
        effective_trials(returns)
    )


def test_deflate_judges_the_best_of_the_trials():
    returns = noise(500, 20, 6, edge=0.002)
    found = deflate(returns)
    assert found.best == int(sharpe_ratios(returns).argmax()) == 0
    variance = sharpe_ratios(returns).var(ddof=1)
    assert found.probability == deflated_sharpe(found.sample, found.trials, variance)
    assert deflate(returns, trials=1).probability == probabilistic_sharpe(found.sample)
    assert deflate(returns, trials=1e9).probability < found.probability


def test_a_trial_that_never_traded_is_no_trial():
    losing = noise(300, 6, 32) - 0.002
    found = deflate(np.column_stack([np.zeros(300), losing]))
    alone = deflate(losing)
    assert found.best == alone.best + 1
    assert found.probability == pytest.approx(alone.probability)
    assert found.expected == pytest.approx(alone.expected)
    with pytest.raises(InvalidInput, match="No trial's returns ever change"):
        deflate(np.zeros((300, 3)))


# Overfitting.


def reference_overfitting(returns, blocks):
    """CSCV word by word: logits, and the chosen trial's Sharpe ratios inside and outside."""
    parts = np.array_split(returns, blocks)
    found = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[i] for i in chosen])
        outside = np.concatenate([parts[i] for i in range(blocks) if i not in chosen])
        best = int((inside.mean(0) / inside.std(0, ddof=1)).argmax())
        ratios = outside.mean(0) / outside.std(0, ddof=1)
        share = stats.rankdata(ratios)[best] / (returns.shape[1] + 1)
        found.append((math.log(share / (1 - share)), ratios[best]))
    return np.array(found).T


@pytest.mark.parametrize(("periods", "trials", "blocks"), [(64, 7, 4), (120, 12, 8), (90, 2, 6)])
def test_overfitting_is_what_the_paper_spells_out(periods, trials, blocks):
    returns = noise(periods, trials, seed=periods)
    found = backtest_overfitting(returns, blocks)
    logits, outside = reference_overfitting(returns, blocks)
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    np.testing.assert_allclose(found.out_of_sample, outside, atol=1e-12)
    line = stats.linregress(found.in_sample, outside)
    assert found.probability == np.mean(logits <= 1e-12)
    assert found.loss == np.mean(outside < 0)
    assert (found.slope, found.intercept) == pytest.approx((line.slope, line.intercept))
    assert found.r_squared == pytest.approx(line.rvalue**2)


def test_blocks_that_do_not_divide_the_periods_lose_none():
    returns = noise(67, 5, seed=8)
    found = backtest_overfitting(returns, 4)
    edges = [0, 16, 33, 50, 67]
    first = np.r_[0:33]
    assert edges[2] == 33
    best = int(sharpe_ratios(returns[first]).argmax())
    assert found.in_sample[0] == pytest.approx(sharpe_ratios(returns[first])[best])
    assert found.out_of_sample[0] == pytest.approx(sharpe_ratios(returns[33:])[best])


def test_a_trial_that_is_always_best_is_no_overfitting():
    found = backtest_overfitting(noise(400, 30, seed=9, edge=0.01), 8)
    assert (found.probability, found.loss) == (0, 0)
    assert found.logits == pytest.approx(math.log(30))


def test_what_wins_inside_and_loses_outside_is_all_overfitting():
    """A trial and its mirror, without a mean: whichever is up inside must be down outside."""
    walk = noise(160, 1, seed=10)[:, 0]
    walk -= walk.mean()
    found = backtest_overfitting(np.column_stack([walk, -walk]), 8)
    assert (found.probability, found.loss) == (1, 1)
    assert found.slope < 0


def test_trials_that_tie_share_their_rank():
    twins = np.repeat(noise(100, 1, seed=11), 6, axis=1)
    found = backtest_overfitting(twins, 4)
    assert found.logits == pytest.approx(0, abs=1e-12)
    assert found.probability == 1
    # Two that are best alike, above three: ranks 4 and 5 of 5.
    best = noise(100, 1, seed=12, edge=0.02)
    found = backtest_overfitting(np.hstack([best, best, noise(100, 3, seed=13)]), 4)
    assert found.logits == pytest.approx(math.log(4.5 / 1.5))


def test_trials_that_tie_inside_alone_count_by_their_mean_rank_outside():
    """Two trials are best and alike in the first half, then one leads and the other is last."""
    first, then = noise(40, 3, seed=30), noise(40, 3, seed=31)
    first[:, 0] += 0.03
    first[:, 1] = first[:, 0]
    then += [0.03, -0.03, 0.0]
    found = backtest_overfitting(np.vstack([first, then]), 2)
    assert found.logits[0] == pytest.approx(0, abs=1e-12)
    outside = sharpe_ratios(then)[:2].mean()
    assert found.out_of_sample[0] == pytest.approx(outside)


def test_the_order_of_trials_does_not_matter_even_when_the_best_tie():
    returns = np.hstack([noise(96, 5, seed=14)] * 2)
    mixed = returns[:, np.random.default_rng(1).permutation(10)]
    np.testing.assert_allclose(
        backtest_overfitting(returns, 6).logits, backtest_overfitting(mixed, 6).logits
    )


def test_a_trial_without_trades_is_judged_as_cash():
    returns = noise(120, 3, seed=15) - 0.02
    returns[:, 1] = 0.0
    found = backtest_overfitting(returns, 6)
    assert (found.probability, found.loss) == (0, 0)
    assert (found.out_of_sample == 0).all()


def test_a_trial_that_stood_still_for_one_half_leaves_no_rounding_behind():
    returns = noise(80, 2, seed=16)
    returns[:40, 0], returns[:, 1] = 0.0, -0.5 * returns[:, 1] - 0.05
    found = backtest_overfitting(returns, 2)
    assert found.in_sample[0] == 0


# The reality check.


@pytest.mark.parametrize("seed", [17, 18, 19, 20])
def test_one_trials_p_value_is_that_of_its_mean(seed):
    """With one trial and no dependence the tests are a z-test of the mean; Hansen's counts a loss
    as no gain."""
    returns = noise(400, 1, seed, edge=0.0004)
    expected = stats.norm.sf(returns.mean() / returns.std() * math.sqrt(400))
    options = {"replications": 4000, "block_length": 1}
    white = reality_check(returns, np.random.default_rng(1), **options)
    hansen = superior_ability(returns, np.random.default_rng(2), **options)
    assert white.p_value == pytest.approx(expected, abs=0.03)
    assert hansen.p_upper == pytest.approx(expected if expected < 0.5 else 1, abs=0.03)


def test_the_benchmark_is_taken_off_every_trial():
    returns, held = noise(200, 4, seed=20, edge=0.002), noise(200, 1, seed=21)[:, 0]
    for test in (reality_check, superior_ability):
        against = test(returns, np.random.default_rng(2), benchmark=held)
        assert against == test(returns - held[:, None], np.random.default_rng(2))
        assert against != test(returns, np.random.default_rng(2))


def test_the_same_generator_gives_the_same_answer():
    returns = noise(150, 5, seed=22)
    first = reality_check(returns, np.random.default_rng(3))
    assert first == reality_check(returns, np.random.default_rng(3))
    assert first.p_value != reality_check(returns, np.random.default_rng(4)).p_value


def test_many_bad_trials_dull_whites_test_and_not_hansens():
    good = noise(250, 1, seed=23, edge=0.0022)
    bad = np.random.default_rng(24).normal(-0.01, 0.03, (250, 60))
    alone = reality_check(good, np.random.default_rng(5)).p_value
    white = reality_check(np.hstack([good, bad]), np.random.default_rng(5))
    hansen = superior_ability(np.hstack([good, bad]), np.random.default_rng(5))
    assert alone < 0.02
    assert white.p_value > 0.2
    assert hansen.p_value < 0.02
    assert hansen.best == white.best == 0


def test_hansens_p_values_are_ordered():
    found = superior_ability(noise(200, 20, seed=25), np.random.default_rng(6))
    assert found.p_lower <= found.p_value <= found.p_upper


def test_a_trial_that_is_the_benchmark_cannot_beat_it():
    held = noise(100, 1, seed=26)[:, 0]
    for test in (reality_check, superior_ability):
        found = test(held[:, None], np.random.default_rng(7), benchmark=held)
        assert (found.statistic, found.p_value) == (0, 1)


def test_hansens_standard_error_is_the_bootstraps_own():
    """ω² of the kernel is the variance of √n times the bootstrapped mean (Politis & Romano)."""
    returns = autoregression(300, 0.5, seed=27)
    places = stationary_bootstrap(300, 8000, 6.0, np.random.default_rng(8))
    drawn = returns[places].mean(axis=1)
    found = superior_ability(returns, np.random.default_rng(9), block_length=6.0)
    kernel = math.sqrt(300) * returns.mean() / found.statistic
    assert found.statistic > 0
    assert kernel == pytest.approx(math.sqrt(300) * drawn.std(), rel=0.04)


def autoregression(periods, rho, seed):
    shocks = np.random.default_rng(seed).normal(0, 1, periods + 200)
    values = np.zeros(periods + 200)
    for i in range(1, len(values)):
        values[i] = rho * values[i - 1] + shocks[i]
    return values[200:] + 0.1


def test_blocks_run_on_wrap_around_and_have_the_mean_length():
    places = stationary_bootstrap(50, 2000, 5.0, np.random.default_rng(10))
    assert places.shape == (2000, 50)
    goes_on = np.diff(places, axis=1) % 50 == 1
    # A new block begins with probability 1/5, and one time in fifty it looks like going on.
    assert goes_on.mean() == pytest.approx(0.8 + 0.2 / 50, abs=0.01)
    counts = np.bincount(places.ravel(), minlength=50) / 2000
    assert counts == pytest.approx(1, abs=0.15)


def test_the_block_length_is_the_reference_implementations():
    """As the test of the package arch has it, for a seeded AR(1) of 0.3 over 10,000 periods."""
    shocks = np.random.RandomState(0).standard_normal(10_100)
    for i in range(1, len(shocks)):
        shocks[i] = 0.3 * shocks[i - 1] + shocks[i]
    assert block_length_for(shocks[100:]) == pytest.approx(13.635665, rel=1e-6)


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_the_block_length_of_an_autoregression_is_the_analytic_one(rho):
    """G = 2 γ₀ ρ / (1 - ρ)², g(0) = γ₀ (1 + ρ) / (1 - ρ): b = (2 ρ / (1 - ρ²))^(2/3) n^(1/3)."""
    returns = np.column_stack([autoregression(20_000, rho, seed) for seed in range(5)])
    analytic = (2 * rho / (1 - rho**2)) ** (2 / 3) * 20_000 ** (1 / 3)
    assert block_length_for(returns) == pytest.approx(analytic, rel=0.25)


def test_noise_needs_no_blocks_and_stillness_none():
    assert block_length_for(noise(5000, 9, seed=28)) < 4
    assert block_length_for(np.zeros((100, 2))) == 1


# How often luck is called skill: worlds of random walks, and worlds where one trial has an edge.

WORLDS = 1000


def share_of(worlds, says):
    return np.mean([says(np.random.default_rng(seed)) for seed in range(worlds)])


def walks(random, edge=0.0, periods=100, trials=8):
    returns = random.normal(0, 0.01, (periods, trials))
    returns[:, 3] += edge
    return returns


def test_the_reality_check_calls_one_walk_in_twenty_skill():
    """Five per cent of a thousand, give or take four standard errors of a binomial."""
    error = math.sqrt(0.05 * 0.95 / WORLDS)
    found = share_of(
        WORLDS, lambda random: reality_check(walks(random), random, replications=99).p_value <= 0.05
    )
    assert abs(found - 0.05) < 4 * error


def test_a_probability_above_95_per_cent_is_one_walk_in_twenty():
    error = math.sqrt(0.05 * 0.95 / WORLDS)
    found = share_of(
        WORLDS,
        lambda random: probabilistic_sharpe(sharpe_sample(random.normal(0, 0.01, 250))) > 0.95,
    )
    assert abs(found - 0.05) < 4 * error


def test_the_deflated_sharpe_ratio_hardly_ever_calls_the_best_walk_skill():
    best = [walks(np.random.default_rng(seed)) for seed in range(WORLDS)]
    assert np.mean([deflate(returns).probability > 0.95 for returns in best]) < 0.01
    # What it corrects: the best of eight passes the uncorrected test six times as often.
    assert np.mean([deflate(returns, trials=1).probability > 0.95 for returns in best]) > 0.25


def test_overfitting_of_walks_is_a_coin_and_of_an_edge_is_rare():
    def probability(edge):
        return [
            backtest_overfitting(walks(np.random.default_rng(seed), edge), 6).probability
            for seed in range(WORLDS)
        ]

    lucky = np.array(probability(0.0))
    assert abs(lucky.mean() - 0.5) < 4 * lucky.std() / math.sqrt(WORLDS)
    assert np.mean(probability(0.005)) < 0.05


@pytest.mark.parametrize("test", [reality_check, superior_ability])
def test_a_planted_edge_is_found(test):
    def says(random):
        found = test(walks(random, edge=0.004), random, replications=99)
        return found.p_value <= 0.05 and found.best == 3

    assert share_of(100, says) > 0.9


def test_a_planted_edge_survives_deflation():
    found = [deflate(walks(np.random.default_rng(seed), 0.006)) for seed in range(100)]
    assert np.mean([one.probability > 0.95 and one.best == 3 for one in found]) > 0.9


# What cannot be judged.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sharpe_ratios(np.zeros((1, 3))), "2 periods or more"),
        (lambda: sharpe_ratios(np.zeros((4, 3, 2))), r"shape \(4, 3, 2\)"),
        (lambda: sharpe_sample(np.zeros(9)), "never change"),
        (lambda: sharpe_sample(noise(9, 2, 1)), "one trial, not of 2"),
        (lambda: SharpeSample(0.1, 100, 0.0, 0.0), "not its excess"),
        (lambda: SharpeSample(math.nan, 100), "cannot be judged"),
        (lambda: min_track_record(SharpeSample(0.1, 9), 0.0, 95), "confidence of 95"),
        (lambda: expected_max_sharpe(0.5, 1.0), "0.5 trials"),
        (lambda: deflate(noise(50, 1, 1)), "2 trials or more"),
        (lambda: backtest_overfitting(noise(50, 3, 1), 5), "even number"),
        (lambda: backtest_overfitting(noise(50, 3, 1), 26), "even number"),
        (lambda: backtest_overfitting(noise(19, 3, 1), 10), "19 periods are too few"),
        (lambda: reality_check(noise(9, 3, 1), np.random.default_rng(1)), "9 periods are too few"),
        (
            lambda: superior_ability(
                noise(50, 3, 1), np.random.default_rng(1), benchmark=np.zeros(49)
            ),
            "one return for each of the 50 periods",
        ),
        (lambda: stationary_bootstrap(10, 5, 0.5, np.random.default_rng(1)), "blocks of 0.5"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, words):
    with pytest.raises(InvalidInput, match=words):
        call()


def test_a_missing_return_is_named():
    returns = noise(30, 4, seed=29)
    returns[7, 2] = np.nan
    with pytest.raises(InvalidInput, match="trial 2 in period 7 is nan"):
        backtest_overfitting(returns, 4)
