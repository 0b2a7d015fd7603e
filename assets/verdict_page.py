"""The verdict as one HTML file that a stranger can read: nothing in it is fetched, every value is escaped.

The page is a function of the verdict's JSON, so it can be made again without scoring anything. Its words are in
`verdict_page.html` beside this file, its pictures in `assets.verdict_charts`.
"""

from datetime import date
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from assets import verdict_charts
from models.judgement import CHAMPION, MIN_EACH, MIN_USERS

TEMPLATE = Path(__file__).with_suffix(".html")
Verdict = dict[str, Any]


def render(verdict: Verdict) -> str:
    """The whole page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": _share, "figure": _figure, "signed": _signed}
    tasks = list(next(iter(verdict["models"].values())))
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        verdict=verdict,
        headline=headline(verdict),
        day=f"{date.fromisoformat(verdict['judged_day']):%A, %-d %B %Y}",
        tasks=tasks,
        order=_order(verdict),
        colours={model: verdict_charts.colour(verdict, model) for model in verdict["models"]},
        forests={other: _svg(verdict_charts.forest(verdict, other), f"forest-{other}") for other in verdict["comparisons"]},
        rocs={task: _svg(verdict_charts.roc(verdict, task), f"roc-{task}") for task in tasks},
        calibrations={task: _svg(verdict_charts.calibration(verdict, task), f"calibration-{task}") for task in tasks},
        needed={"each": MIN_EACH, "users": MIN_USERS},
    )


def headline(verdict: Verdict) -> str:
    """The outcome in a few words."""
    name = verdict["challenger"]["name"]
    if verdict["promote"]:
        return f"{name} beats the champion" if CHAMPION in verdict["models"] else f"{name} beats popularity"
    return "The champion stays" if verdict["champion"] else "No champion yet"


def _order(verdict: Verdict) -> list[str]:
    """Models in the order of the tables: challenger, champion, references."""
    first = [verdict["challenger"]["name"], *([CHAMPION] if CHAMPION in verdict["models"] else [])]
    return first + [name for name in verdict["models"] if name not in first]


def _svg(figure: Any, name: str) -> Markup:
    return Markup(verdict_charts.svg(figure, name))


def _figure(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
