"""Is it luck? What a search among many strategies would have found in returns that hold nothing.

Returns are simple returns of one period, fractions, as arrays of shape (periods,) or (periods,
trials), oldest first. Sharpe ratios are per period and never annualised: mean / standard deviation
(n - 1 in the denominator). A trial that never moves has the Sharpe ratio 0. Every function is pure;
those that draw take the generator. InvalidInput names what is wrong with the returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np
from scipy.special import ndtr, ndtri

from tradelib.errors import InvalidInput

_CELLS = 4_000_000
"""Numbers that a step holds at once, 32 MB: longer work is cut into steps of that size."""

_STILL = 1e-12
"""Share of the mean square below which a variance is rounding, and a Sharpe ratio's tie."""


@dataclass(frozen=True)
class SharpeSample:
    """A Sharpe ratio and what its error depends on.

    sharpe: per period. periods: returns it comes from. skew: third standardised moment. kurtosis:
    fourth standardised moment, 3 for a normal law.
    """

    sharpe: float
    periods: int
    skew: float = 0.0
    kurtosis: float = 3.0

    def __post_init__(self) -> None:
        numbers = (self.sharpe, self.skew, self.kurtosis)
        if self.periods < 2 or not all(map(math.isfinite, numbers)):
            raise InvalidInput(
                f"A Sharpe ratio of {self.sharpe:g} with skew {self.skew:g} and kurtosis "
                f"{self.kurtosis:g} over {self.periods} periods cannot be judged; give finite "
                f"numbers and 2 periods or more."
            )
        if self.kurtosis < (1 + self.skew**2) * (1 - 1e-9):
            raise InvalidInput(
                f"No returns have a kurtosis of {self.kurtosis:g} at a skew of {self.skew:g}: it "
                f"is at least 1 + skew². Give the kurtosis itself, not its excess over 3."
            )

    @property
    def scatter(self) -> float:
        """Standard error of the Sharpe ratio times √(n - 1).

        √(1 - γ₃ SR + (γ₄ - 1) / 4 SR²). Source: Mertens, 2002; Bailey & López de Prado, The Sharpe
        ratio efficient frontier, Journal of Risk 15(2), 2012.
        """
        square = 1 - self.skew * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2
        return math.sqrt(max(square, 0.0))


def sharpe_sample(returns: np.ndarray) -> SharpeSample:
    """The Sharpe ratio and moments of one series of returns, shape (periods,)."""
    column = _matrix(returns)
    if column.shape[1] != 1:
        raise InvalidInput(f"Give the returns of one trial, not of {column.shape[1]}.")
    values = column[:, 0]
    if not _moves(column)[0]:
        raise InvalidInput("The returns never change, so that they have no Sharpe ratio.")
    away = values - values.mean()
    square = float(np.mean(away**2))
    return SharpeSample(
        float(sharpe_ratios(values)[0]),
        len(values),
        float(np.mean(away**3)) / square**1.5,
        float(np.mean(away**4)) / square**2,
    )


def sharpe_ratios(returns: np.ndarray) -> np.ndarray:
    """Sharpe ratio of each trial, per period, shape (trials,)."""
    values = _matrix(returns)
    mean = values.mean(axis=0)
    spread = np.mean((values - mean) ** 2, axis=0)
    return _sharpe(mean, spread, np.mean(values**2, axis=0), len(values))


def probabilistic_sharpe(sample: SharpeSample, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above the benchmark's, 0…1.

    PSR = Φ((SR - SR*) √(n - 1) / √(1 - γ₃ SR + (γ₄ - 1) / 4 SR²)); benchmark: SR*, per period.
    A monthly mean of 0.036 with deviation 0.079, skew -2.448 and kurtosis 10.164 over 24 months:
    0.913. Source and example: Bailey & López de Prado, 2012 (see `scatter`), on the probabilistic
    Sharpe ratio.
    """
    distance = (sample.sharpe - benchmark) * math.sqrt(sample.periods - 1)
    if sample.scatter == 0:
        return float(np.heaviside(distance, 0.5))
    return float(ndtr(distance / sample.scatter))


def min_track_record(
    sample: SharpeSample, benchmark: float = 0.0, confidence: float = 0.95
) -> float:
    """Periods from which `probabilistic_sharpe` is above the confidence; inf where it never is.

    MinTRL = 1 + (1 - γ₃ SR + (γ₄ - 1) / 4 SR²) (z / (SR - SR*))². A yearly Sharpe ratio of 2
    against 1, returns normal and daily: 2.73 years. Source and example: Bailey & López de Prado,
    2012 (see `scatter`), on the track record length, equation 13.
    """
    if not 0.5 < confidence < 1:
        raise InvalidInput(f"A confidence of {confidence:g} makes no sense; give 0.5…1.")
    if sample.sharpe <= benchmark:
        return math.inf
    return 1 + (sample.scatter * float(ndtri(confidence)) / (sample.sharpe - benchmark)) ** 2


def expected_max_sharpe(trials: float, variance: float) -> float:
    """Sharpe ratio, per period, that the best of so many trials without skill is expected to show.

    SR₀ = √V ((1 - γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e))), γ Euler's constant; 0 for one trial.
    trials: N, independent, need not be whole. variance: V, of the trials' Sharpe ratios, per
    period. Source: Bailey & López de Prado, The deflated Sharpe ratio, Journal of Portfolio
    Management 40(5), 2014, equation 1.
    """
    if not (1 <= trials < math.inf and 0 <= variance < math.inf):
        raise InvalidInput(
            f"{trials:g} trials with a variance of {variance:g} make no sense; give at least 1 "
            f"and at least 0."
        )
    if trials == 1:
        return 0.0
    gamma = np.euler_gamma
    best = (1 - gamma) * ndtri(1 - 1 / trials) + gamma * ndtri(1 - 1 / (trials * math.e))
    # Between one trial and two the approximation falls below the mean, which no maximum does.
    return math.sqrt(variance) * max(float(best), 0.0)


def effective_trials(returns: np.ndarray) -> float:
    """Independent trials that the correlated ones amount to, 1…trials.

    N = ρ + (1 - ρ) M, ρ the mean correlation between two trials, M their number. Trials that never
    move count for nothing. Source: Bailey & López de Prado, 2014 (see `expected_max_sharpe`),
    appendix A.3.
    """
    values = _matrix(returns)
    away = (values - values.mean(axis=0))[:, _moves(values)]
    count = away.shape[1]
    if count < 2:
        return 1.0
    unit = away / np.sqrt((away**2).sum(axis=0))
    # The sum of all correlations is the square of the sum of the unit columns: no matrix needed.
    mean = (float((unit.sum(axis=1) ** 2).sum()) - count) / (count * (count - 1))
    return float(np.clip(mean + (1 - mean) * count, 1.0, count))


def deflated_sharpe(sample: SharpeSample, trials: float, variance: float) -> float:
    """Probability that the Sharpe ratio of the best trial is more than the luck of the best, 0…1.

    DSR = PSR(SR₀), SR₀ from `expected_max_sharpe`. A yearly Sharpe ratio of 2.5 over 1,250 days,
    skew -3, kurtosis 10, chosen among 100 whose yearly ratios have the variance 1/2: 0.9004.
    Source and example: Bailey & López de Prado, 2014 (see `expected_max_sharpe`), equation 2.
    """
    return probabilistic_sharpe(sample, expected_max_sharpe(trials, variance))


@dataclass(frozen=True)
class Deflated:
    """What `deflate` found. best: column of the trial with the highest Sharpe ratio. trials: how
    many independent ones they count for. expected: the best's Sharpe ratio by luck, per period.
    probability: the deflated Sharpe ratio, 0…1, near 1 for skill."""

    best: int
    sample: SharpeSample
    trials: float
    expected: float
    probability: float


def deflate(returns: np.ndarray, trials: float | None = None) -> Deflated:
    """The deflated Sharpe ratio of the best of all trials, returns of shape (periods, trials).

    trials: independent ones; None counts them by `effective_trials`. Give every trial that was
    made, the discarded ones above all. Those that never move are no trials: they cannot be best.
    """
    values = _matrix(returns, least_trials=2)
    moving = np.flatnonzero(_moves(values))
    if moving.size == 0:
        raise InvalidInput("No trial's returns ever change, so that none has a Sharpe ratio.")
    ratios = sharpe_ratios(values[:, moving])
    best = int(moving[ratios.argmax()])
    sample = sharpe_sample(values[:, best])
    count = effective_trials(values) if trials is None else float(trials)
    expected = expected_max_sharpe(count, float(ratios.var(ddof=1)) if moving.size > 1 else 0.0)
    return Deflated(best, sample, count, expected, probabilistic_sharpe(sample, expected))


@dataclass(frozen=True)
class Overfitting:
    """What `backtest_overfitting` found, over all ways to choose half of the blocks.

    logits: of the chosen trial's relative rank outside, one for each way; below 0 it is worse there
    than the median. in_sample and out_of_sample: the chosen trial's Sharpe ratios, per period.
    probability: PBO, share of logits at or below 0. loss: share of ways in which the chosen trial
    loses outside. slope and intercept: of the line from in_sample to out_of_sample, r_squared how
    well it fits; a slope below 0 says that what looks better does worse.
    """

    probability: float
    loss: float
    slope: float
    intercept: float
    r_squared: float
    logits: np.ndarray = field(repr=False)
    in_sample: np.ndarray = field(repr=False)
    out_of_sample: np.ndarray = field(repr=False)


def backtest_overfitting(returns: np.ndarray, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting (PBO) by combinatorially symmetric cross-validation.

    The periods of all trials are cut into `blocks` blocks, an even number; each choice of half of
    them is once the sample in which the best Sharpe ratio is chosen, the rest being where it is
    ranked. λ = ln(ω / (1 - ω)), ω = rank / (trials + 1), rank 1 the worst; PBO = share of λ ≤ 0.
    Trials that tie for the best are all chosen, and count by their mean; a tie outside ranks in its
    middle. Blocks differ by one period at most where the periods do not divide.

    16 blocks are 12,870 choices: 1,000 trials take some seconds and 100 MB.
    Source: Bailey, Borwein, López de Prado & Zhu, The probability of backtest overfitting, Journal
    of Computational Finance 20(4), 2017 (SSRN 2326253, 2015), sections 2 and 3.
    """
    values = _matrix(returns, least_trials=2)
    _check_blocks(blocks, len(values))
    sums = _block_sums(values, blocks)
    size = max(1, _CELLS // (4 * values.shape[1]))
    parts = [_chosen(sums, halves) for halves in _halves(blocks, size)]
    inside, outside, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    share = ranks / (values.shape[1] + 1)
    logits = np.log(share / (1 - share))
    slope, intercept, r_squared = _line(inside, outside)
    # A rank in the middle has the logit 0, but for rounding.
    return Overfitting(
        float(np.mean(logits <= _STILL)),
        float(np.mean(outside < 0)),
        slope,
        intercept,
        r_squared,
        logits,
        inside,
        outside,
    )


@dataclass(frozen=True)
class _BlockSums:
    """Of each block: its periods (blocks,), and the sums and sums of squares (blocks, trials) of
    the returns less `mean`, so that no digits are lost where the variance is small."""

    mean: np.ndarray
    periods: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


def _check_blocks(blocks: int, periods: int) -> None:
    if blocks < 2 or blocks % 2 or blocks > 24:
        raise InvalidInput(f"{blocks} blocks cannot be halved well; give an even number, 2…24.")
    if periods < 2 * blocks:
        raise InvalidInput(
            f"{periods} periods are too few for {blocks} blocks of 2 or more; give fewer blocks."
        )


def _block_sums(values: np.ndarray, blocks: int) -> _BlockSums:
    edges = np.arange(blocks + 1) * len(values) // blocks
    mean = values.mean(axis=0)
    away = values - mean
    return _BlockSums(
        mean,
        np.diff(edges).astype("float64"),
        np.add.reduceat(away, edges[:-1], axis=0),
        np.add.reduceat(away**2, edges[:-1], axis=0),
    )


def _halves(blocks: int, size: int) -> Iterator[np.ndarray]:
    """All choices of half of the blocks, as rows of ones and zeros, at most `size` at a time."""
    choices = combinations(range(blocks), blocks // 2)
    while chosen := list(islice(choices, size)):
        halves = np.zeros((len(chosen), blocks))
        np.put_along_axis(halves, np.asarray(chosen), 1.0, axis=1)
        yield halves


def _chosen(sums: _BlockSums, halves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each half: the best's Sharpe ratio inside, and its Sharpe ratio and rank outside."""
    inside, outside = _half_sharpe(sums, halves), _half_sharpe(sums, 1 - halves)
    top = inside.max(axis=1)
    best = inside >= (top - _STILL)[:, None]
    tied = best.sum(axis=1)
    found = (outside * best).sum(axis=1) / tied
    ranks = _mean_rank(outside, best.argmax(axis=1))
    for row in np.flatnonzero(tied > 1):
        chosen = np.flatnonzero(best[row])
        again = np.broadcast_to(outside[row], (len(chosen), outside.shape[1]))
        ranks[row] = _mean_rank(again, chosen).mean()
    return top, found, ranks


def _half_sharpe(sums: _BlockSums, halves: np.ndarray) -> np.ndarray:
    periods = halves @ sums.periods
    mean = (halves @ sums.sums) / periods[:, None]
    square = (halves @ sums.squares) / periods[:, None]
    # The mean square of what was summed: a half in which a trial stands still leaves its rounding.
    return _sharpe(mean + sums.mean, square - mean**2, square, periods[:, None])


def _mean_rank(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Rank, 1 the lowest, of one column of each row; a tie ranks in its middle."""
    own = np.take_along_axis(values, columns[:, None], axis=1)
    below = (values < own - _STILL).sum(axis=1)
    equal = (np.abs(values - own) <= _STILL).sum(axis=1)
    return below + (equal + 1) / 2


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and r² of the least squares line; a slope of 0 where x does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    spread, rise = float(dx @ dx), float(dx @ dy)
    if spread <= _STILL * float(x @ x):
        return 0.0, float(y.mean()), 0.0
    slope = rise / spread
    total = float(dy @ dy)
    return slope, float(y.mean() - slope * x.mean()), slope * rise / total if total else 0.0


@dataclass(frozen=True)
class BestOfMany:
    """What a bootstrap of the best of all trials says against "none beats the benchmark".

    best: column of the trial with the highest statistic. statistic: its value, see the test.
    p_value: how often luck gives as much, 0…1. p_lower and p_upper: Hansen's bounds, the p-value
    if all losing trials are left out and if all are as good as the benchmark; White's test, which
    assumes the latter, has its p-value in both. block_length: mean block of the bootstrap, periods.
    """

    best: int
    statistic: float
    p_value: float
    p_lower: float
    p_upper: float
    block_length: float
    replications: int


def reality_check(
    returns: np.ndarray,
    random: np.random.Generator,
    *,
    benchmark: np.ndarray | None = None,
    replications: int = 1000,
    block_length: float | None = None,
) -> BestOfMany:
    """White's reality check: may the best mean return of all trials come from no skill at all?

    returns: shape (periods, trials). benchmark: returns of shape (periods,), such as buying and
    holding; None is cash. The statistic V = max √n f, f a trial's mean return over the benchmark's,
    is held against V* = max √n (f* - f) of stationary bootstraps; p = (1 + #{V* ≥ V}) / (1 + B).
    replications: B. block_length: mean periods of a block; None takes `block_length_for`.
    Source: White, A reality check for data snooping, Econometrica 68(5), 2000, section 2.
    """
    values = _over_benchmark(returns, benchmark)
    length = block_length_for(values) if block_length is None else float(block_length)
    means = _bootstrap_means(values, random, replications, length)
    mean, root = values.mean(axis=0), math.sqrt(len(values))
    statistic = root * float(mean.max())
    p_value = _p_value(root * (means - mean).max(axis=1), statistic)
    return BestOfMany(
        int(mean.argmax()), statistic, p_value, p_value, p_value, length, replications
    )


def superior_ability(
    returns: np.ndarray,
    random: np.random.Generator,
    *,
    benchmark: np.ndarray | None = None,
    replications: int = 1000,
    block_length: float | None = None,
) -> BestOfMany:
    """Hansen's test of superior predictive ability: the reality check, not dulled by bad trials.

    As `reality_check`, but each trial is measured in its own standard error ω, T = max(0, max √n f
    / ω), and a trial that is worse than -ω √(2 ln ln n / n) no longer raises the bar. p_value is
    the consistent one, p_lower and p_upper its bounds.
    Source: Hansen, A test for superior predictive ability, Journal of Business & Economic
    Statistics 23(4), 2005, section 2; ω² by the stationary bootstrap's own kernel, as there.
    """
    values = _over_benchmark(returns, benchmark)
    length = block_length_for(values) if block_length is None else float(block_length)
    means = _bootstrap_means(values, random, replications, length)
    mean, root = values.mean(axis=0), math.sqrt(len(values))
    error = _standard_error(values, length)
    scaled = root * mean / error
    bar = -math.sqrt(2 * math.log(math.log(len(values))))
    centres = (np.maximum(mean, 0), np.where(scaled >= bar, mean, 0), mean)
    statistic = max(0.0, float(scaled.max()))
    lower, consistent, upper = (
        _p_value(np.maximum(root * ((means - centre) / error).max(axis=1), 0), statistic)
        for centre in centres
    )
    return BestOfMany(
        int(scaled.argmax()), statistic, consistent, lower, upper, length, replications
    )


def block_length_for(returns: np.ndarray) -> float:
    """Mean block of the stationary bootstrap that suits the returns, periods, at least 1.

    b = (2 G² n / D)^(1/3), D = 2 g(0)², G = Σ λ(k/M) |k| γ_k, g(0) = Σ λ(k/M) γ_k, λ the flat-top
    window; M is twice the lag after which the autocorrelations stay within ±2 √(log₁₀ n / n). At
    most 3 √n and n/3. Of several trials it is the median of theirs. Source: Politis & White,
    Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23(1), 2004,
    for the stationary bootstrap, with the D of Patton, Politis & White's correction, 28(4), 2009.
    """
    values = _matrix(returns)
    count = len(values)
    away = (values - values.mean(axis=0))[:, _moves(values)]
    if away.shape[1] == 0 or count < 10:
        return 1.0
    quiet = max(5, int(math.log10(count)))
    most = min(math.ceil(math.sqrt(count)) + quiet, count - 2)
    covariances, correlations = _autocovariances(away, most)
    lengths = [
        _block_length(covariances[:, i], correlations[:, i], quiet, count)
        for i in range(away.shape[1])
    ]
    return float(np.median(np.clip(lengths, 1.0, math.ceil(min(3 * math.sqrt(count), count / 3)))))


def _autocovariances(away: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Autocovariances at the lags 0…most, and their absolute values as correlations; each lag's
    correlation is held against the squares of its own two stretches."""
    count = len(away)
    covariances, correlations = np.empty((2, most + 1, away.shape[1]))
    squares = away**2
    total = squares.sum(axis=0)
    ahead, behind = total.copy(), total.copy()
    for lag in range(most + 1):
        cross = np.einsum("tk,tk->k", away[lag:], away[: count - lag])
        ahead, behind = ahead - squares[lag], behind - squares[count - 1 - lag]
        covariances[lag] = cross / count
        correlations[lag] = np.abs(cross) / np.sqrt(np.maximum(ahead * behind, 1e-300))
    return covariances, correlations


def _block_length(covariance: np.ndarray, correlation: np.ndarray, quiet: int, count: int) -> float:
    small = correlation < 2 * math.sqrt(math.log10(count) / count)
    most = len(covariance) - 1
    runs = np.convolve(small[:most], np.ones(quiet), mode="valid") == quiet
    window = min(2 * max(int(runs.argmax()), 1), most) if runs.any() else most
    lags = np.arange(1, window + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / window)) * covariance[1 : window + 1]
    slope, spectrum = 2 * float(weights @ lags), float(covariance[0] + 2 * weights.sum())
    if spectrum == 0:
        return 1.0
    return (slope**2 / spectrum**2 * count) ** (1 / 3)


def stationary_bootstrap(
    periods: int, replications: int, block_length: float, random: np.random.Generator
) -> np.ndarray:
    """Positions of resampled periods, shape (replications, periods), in 0…periods - 1.

    Blocks begin anywhere, go on past the last period with the first, and have a geometric length
    of mean `block_length`. Source: Politis & Romano, The stationary bootstrap, Journal of the
    American Statistical Association 89, 1994, section 2.
    """
    if periods < 1 or replications < 1 or not 1 <= block_length < math.inf:
        raise InvalidInput(
            f"{replications} samples of {periods} periods in blocks of {block_length:g} make no "
            f"sense; give at least 1 of each."
        )
    starts = random.integers(0, periods, (replications, periods))
    begins = random.random((replications, periods)) < 1 / block_length
    places = np.arange(periods)
    # The first block begins with the first period, whatever was drawn.
    since = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return (np.take_along_axis(starts, since, axis=1) + places - since) % periods


def _bootstrap_means(
    values: np.ndarray, random: np.random.Generator, replications: int, length: float
) -> np.ndarray:
    """Mean of each trial in each resample, shape (replications, trials)."""
    count, trials = values.shape
    means = np.empty((replications, trials))
    size = max(1, _CELLS // (8 * count))
    for first in range(0, replications, size):
        part = means[first : first + size]
        picked = stationary_bootstrap(count, len(part), length, random)
        # How often each period was drawn: one product then serves all trials.
        flat = picked + np.arange(len(part))[:, None] * count
        drawn = np.bincount(flat.ravel(), minlength=part.shape[0] * count)
        part[:] = drawn.reshape(len(part), count) @ values / count
    return means


def _standard_error(values: np.ndarray, length: float) -> np.ndarray:
    """ω: √n times the standard error of each trial's mean, as the stationary bootstrap has it."""
    count = len(values)
    away = values - values.mean(axis=0)
    size = 1 << (2 * count - 1).bit_length()
    weights, lags, keep = np.empty(count), np.arange(count), 1 - 1 / length
    weights = (1 - lags / count) * keep**lags + lags / count * keep ** (count - lags)
    weights[1:] *= 2
    square = np.empty(values.shape[1])
    step = max(1, _CELLS // (4 * size))
    for first in range(0, values.shape[1], step):
        spectrum = np.fft.rfft(away[:, first : first + step], size, axis=0)
        covariance = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=0)[:count] / count
        square[first : first + step] = weights @ covariance
    still = square <= _STILL * np.mean(values**2, axis=0)
    # A trial that equals the benchmark has neither merit nor error.
    return np.where(still, math.inf, np.sqrt(np.maximum(square, 0)))


def _p_value(lucky: np.ndarray, statistic: float) -> float:
    # Rounding must not make a resample that equals the sample fall short of it.
    return float((1 + np.sum(lucky >= statistic - _STILL * abs(statistic))) / (1 + len(lucky)))


def _over_benchmark(returns: np.ndarray, benchmark: np.ndarray | None) -> np.ndarray:
    values = _matrix(returns)
    if len(values) < 10:
        raise InvalidInput(f"{len(values)} periods are too few for a bootstrap; give 10 or more.")
    if benchmark is None:
        return values
    base = _matrix(benchmark)
    if base.shape != (len(values), 1):
        raise InvalidInput(
            f"The benchmark has the shape {np.shape(benchmark)}; give one return for each of the "
            f"{len(values)} periods."
        )
    return values - base


def _moves(values: np.ndarray) -> np.ndarray:
    """Which trials have returns that change by more than rounding."""
    return values.var(axis=0) > _STILL * np.mean(values**2, axis=0)


def _sharpe(
    mean: np.ndarray, spread: np.ndarray, square: np.ndarray, periods: np.ndarray | int
) -> np.ndarray:
    """Sharpe ratios of means, mean squared distances to them and mean squares; 0 without spread."""
    moves = spread > _STILL * square
    deviation = np.sqrt(np.where(moves, spread, 1.0) * periods / (periods - 1))
    return np.where(moves, mean / deviation, 0.0)


def _matrix(returns: np.ndarray, least_trials: int = 1) -> np.ndarray:
    """The returns as a checked float64 matrix (periods, trials)."""
    values = np.asarray(returns, dtype="float64")
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2 or values.shape[1] < least_trials:
        raise InvalidInput(
            f"Returns of shape {np.shape(returns)} cannot be judged; give 2 periods or more by "
            f"{least_trials} trials or more."
        )
    if not np.isfinite(values).all():
        period, trial = np.argwhere(~np.isfinite(values))[0]
        raise InvalidInput(
            f"The return of trial {trial} in period {period} is {values[period, trial]}; leave out "
            f"the warm-up, or correct it."
        )
    return values
