"""How a metric changes from one set of parameters to the next: a plateau, or a lone peak.

A result that its neighbours share rests on more than the noise of one series; one that falls away
at the next step of the grid was found by trying often enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tradelib.errors import InvalidInput, unknown_name


@dataclass(frozen=True)
class Stability:
    """A metric over two parameters, and each cell's neighbourhood.

    All frames have one row for each value of `y` and one column for each value of `x`, both sorted.
    surface: the metric, NaN where it was not tried. A cell's neighbours lie within `radius` steps
    of the grid, the cell itself left out: mean and std (n in the denominator) are theirs, share is
    the fraction of them at or above the threshold, 0…1; NaN for a cell without neighbours.
    """

    x: str
    y: str
    metric: str
    radius: int
    threshold: float
    surface: pd.DataFrame = field(repr=False)
    mean: pd.DataFrame = field(repr=False)
    std: pd.DataFrame = field(repr=False)
    share: pd.DataFrame = field(repr=False)

    @property
    def best(self) -> dict[str, float]:
        """The parameters of the highest cell, the first of several."""
        row, column = np.unravel_index(np.nanargmax(self.surface.to_numpy()), self.surface.shape)
        axes = self.surface.columns, self.surface.index
        return {self.x: axes[0].tolist()[column], self.y: axes[1].tolist()[row]}

    def plateau_score(self, chosen: dict[str, float] | None = None) -> float:
        """How much of the chosen cell's lead its neighbours keep, 0 a lone peak … 1 a plateau.

        The lead is what the cell has above the median of the surface; each neighbour keeps its
        own part of it, cut to 0…1, and the score is their mean. 0 for a cell without a lead. With
        a median of 1, a cell of 3 and neighbours of 3, 2, 1 and 0: (1 + 1/2 + 0 + 0) / 4 = 0.375.
        chosen: a value of each of the two parameters; None takes the best.
        """
        row, column = self._place(self.best if chosen is None else chosen)
        values = self.surface.to_numpy()
        floor, top = np.nanmedian(values), values[row, column]
        beside = _around(values, self.radius)[row, column]
        beside = beside[~np.isnan(beside)]
        if not top > floor or beside.size == 0:
            return 0.0
        return float(np.clip((beside - floor) / (top - floor), 0, 1).mean())

    def _place(self, chosen: dict[str, float]) -> tuple[int, int]:
        if set(chosen) != {self.x, self.y}:
            raise InvalidInput(
                f"Name a cell by {self.x} and {self.y}, not by {', '.join(chosen) or 'nothing'}."
            )
        for name, known in ((self.x, self.surface.columns), (self.y, self.surface.index)):
            if chosen[name] not in known:
                raise InvalidInput(
                    f"{name} = {chosen[name]} was not tried; tried were "
                    f"{', '.join(map(str, known))}."
                )
        place = self.surface.index.get_loc(chosen[self.y])
        return place, self.surface.columns.get_loc(chosen[self.x])


def parameter_stability(
    rows: pd.DataFrame,
    x: str,
    y: str,
    metric: str,
    *,
    radius: int = 1,
    threshold: float = 0.0,
) -> Stability:
    """The surface of a metric, higher is better, over the parameters `x` and `y`.

    rows: one for each set that was tried, with columns for the parameters and the metric; a NaN
    metric counts as not tried. Neighbours are counted in steps of the grid, whatever their
    distance in the parameter's unit, so choose steps that mean the same everywhere.
    """
    for name in (x, y, metric):
        if name not in rows.columns:
            raise unknown_name("column", name, map(str, rows.columns), "the tried parameters")
    if radius < 1 or x == y:
        raise InvalidInput(
            f"A surface needs two parameters and a radius of 1 or more, not {x}, {y} and {radius}."
        )
    doubled = rows.duplicated([x, y])
    if doubled.any():
        again = rows.loc[doubled, [x, y]].iloc[0]
        raise InvalidInput(
            f"{x} = {again[x]}, {y} = {again[y]} was tried more than once; keep the rows with one "
            f"value of each other parameter."
        )
    surface = rows.pivot(index=y, columns=x, values=metric).sort_index().sort_index(axis=1)
    values = surface.to_numpy(dtype="float64")
    if not np.isfinite(values).any() or np.isinf(values).any():
        raise InvalidInput(f"The column {metric} needs a number, and no infinite one.")
    return Stability(x, y, metric, radius, threshold, surface, *_told(surface, radius, threshold))


def _told(surface: pd.DataFrame, radius: int, threshold: float) -> list[pd.DataFrame]:
    """Mean, standard deviation and share above the threshold of each cell's neighbours."""
    beside = _around(surface.to_numpy(dtype="float64"), radius)
    there = ~np.isnan(beside)
    count = there.sum(axis=-1).astype("float64")
    count[count == 0] = np.nan
    mean = np.where(there, beside, 0).sum(axis=-1) / count
    away = np.where(there, beside - mean[..., None], 0)
    std = np.sqrt((away**2).sum(axis=-1) / count)
    share = (there & (beside >= threshold)).sum(axis=-1) / count
    return [
        pd.DataFrame(one, index=surface.index, columns=surface.columns)
        for one in (mean, std, share)
    ]


def _around(values: np.ndarray, radius: int) -> np.ndarray:
    """Each cell's neighbours, shape (rows, columns, (2 radius + 1)² - 1); NaN beyond the edge."""
    padded = np.pad(np.asarray(values, dtype="float64"), radius, constant_values=np.nan)
    width = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
    flat = windows.reshape(*values.shape, width * width)
    return np.delete(flat, width * width // 2, axis=-1)
