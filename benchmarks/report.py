"""Rows of numbers -> means with confidence, differences to the baseline on the same pairs, and a table to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mattface import measure

Row = dict[str, Any]


@dataclass(frozen=True)
class Number:
    """One thing that is measured.

    Attributes:
        key: in rows and in the JSON.
        title: in words, with the unit.
        ratio: whether its mean is geometric and its comparison a quotient.
        wanted: whether a row has it; None for all.
        everywhere: whether the table shows it for every group of cases, or for all of them together only.
        given: whether it is known beforehand, the same for every method.
    """

    key: str
    title: str
    ratio: bool = False
    wanted: Callable[[Row], bool] | None = None
    everywhere: bool = False
    given: bool = False

    def of(self, rows: Sequence[Row]) -> list[float]:
        """This number of every row that has it."""
        values = [row[self.key] for row in rows if self.wanted is None or self.wanted(row)]
        return [math.nan if value is None else float(value) for value in values]


def summarise(rows: Sequence[Row], others: Sequence[Row] | None, numbers: Sequence[Number]) -> dict[str, Any]:
    """`measure.summary` of every number; with "against": `measure.paired` to the same cases of the baseline.

    Args:
        rows: of one method.
        others: of the baseline, case by case the same; None for the baseline itself.
        numbers: what to summarise; those without any value are left out.
    """
    found = {}
    for number in numbers:
        values = number.of(rows)
        if not values:
            continue
        found[number.key] = measure.summary(values, number.ratio)
        if others is not None:
            found[number.key]["against"] = measure.paired(values, number.of(others), number.ratio)
    return found


def table(title: str, groups: dict[str, dict[str, dict[str, Any]]], numbers: Sequence[Number], baseline: str) -> str:
    """A heading per number; per group and method: mean [interval], median, and what it is more than the baseline.

    Args:
        title: of the table.
        groups: name of a group of cases -> method -> `summarise`.
        numbers: to show.
        baseline: name of the method that the others are compared with.
    """
    lines = [title, "=" * len(title)]
    for number in numbers:
        found = []
        for group, summaries in groups.items():
            if number.everywhere or group == next(iter(groups)):
                shown = {name: one[number.key] for name, one in summaries.items() if number.key in one}
                shown = {"given": shown[baseline]} if number.given and baseline in shown else shown
                found += [(group, name, line(one, number, baseline)) for name, one in shown.items()]
        if found:
            wide = [max(len(row[k]) for row in found) for k in (0, 1)]
            lines.append(number.title + (" (geometric mean)" if number.ratio else ""))
            lines += [f"  {group:{wide[0]}}  {name:{wide[1]}}  {text}" for group, name, text in found]
    return "\n".join(lines) + "\n"


def line(one: dict[str, Any], number: Number, baseline: str) -> str:
    """One method's number in words."""
    if one["mean"] is None:
        return f"nothing could be measured ({one['missing']} missing)"
    text = f"{one['mean']:8.4g} {interval(one):22} median {one['median']:8.4g}  n {one['count']}"
    if one["missing"]:
        text += f" ({one['missing']} missing)"
    against = one.get("against")
    if against and against["mean"] is not None:
        sign = "times" if number.ratio else "minus"
        value = f"{against['mean']:.4g}" if number.ratio else f"{against['mean']:+.4g}"
        text += f"  {sign} {baseline}: {value} {interval(against)}"
    return text


def interval(one: dict[str, Any]) -> str:
    """95 % confidence interval."""
    return f"[{one['low']:.4g}, {one['high']:.4g}]"


def plain(rows: Sequence[Row]) -> list[Row]:
    """Rows as JSON holds them: None in place of NaN."""
    return [{key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()} for row in rows]
