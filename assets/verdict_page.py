"""The verdict as one HTML file that a stranger can read: nothing in it is fetched, every value is escaped.

The page is a function of the verdict's JSON and of links, so it can be made again without scoring anything. Its words are in
`verdict_page.html` beside this file, its pictures in `assets.verdict_charts`.
"""

from datetime import date
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from assets import verdict_charts, verdict_origin
from models.days import ends, span
from models.judgement import CHAMPION, MIN_EACH, MIN_USERS, POPULARITY

TEMPLATE = Path(__file__).with_suffix(".html")
YARDSTICKS = {POPULARITY: "each item's own past rate, a yardstick", "lightgbm": "trees on counts and rates, a yardstick"}
"""What stands beside a reference's name: neither is ever served."""
Verdict = dict[str, Any]


def render(verdict: Verdict, origin: verdict_origin.Origin | None = None, made_from: str = "") -> str:
    """The whole page. `origin`: the links of `verdict_origin`; `made_from`: noted in it, to tell whether it is current."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": _share, "figure": _figure, "signed": _signed}
    tasks = list(next(iter(verdict["models"].values())))
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        verdict=verdict,
        headline=headline(verdict),
        day=" to ".join(f"{date.fromisoformat(day):%A, %-d %B %Y}" for day in ends(verdict["judged_days"])),
        held_out=span(verdict["held_out"]),
        tasks=tasks,
        words={task: _words(verdict, task) for task in tasks},
        origin=origin or {},
        made_from=made_from,
        order=_order(verdict),
        colours={model: verdict_charts.colour(verdict, model) for model in verdict["models"]},
        forests={other: _svg(verdict_charts.forest(verdict, other), f"forest-{other}") for other in verdict["comparisons"]},
        rocs={task: _svg(verdict_charts.roc(verdict, task), f"roc-{task}") for task in tasks},
        calibrations={task: _svg(verdict_charts.calibration(verdict, task), f"calibration-{task}") for task in tasks},
        yardsticks={name: YARDSTICKS.get(name, "") for name in verdict["models"]},
        needed={"each": MIN_EACH, "users": MIN_USERS},
    )


def headline(verdict: Verdict) -> str:
    """The outcome in a few words."""
    name = verdict["challenger"]["name"]
    if verdict["promote"]:
        return f"{name} beats the champion" if CHAMPION in verdict["models"] else f"{name} beats popularity"
    return "The champion stays" if verdict["champion"] else "No champion yet"


def _words(verdict: Verdict, task: str) -> str:
    """The AUCs of a task as what they are: how often the right one of two rows comes first."""
    told = [
        f"{model} {verdict['models'][model][task]['auc']:.1%}"
        for model in _order(verdict)
        if verdict["models"][model][task]["auc"]
    ]
    if not told:
        return f"The day has no two rows, one with {task} and one without, that could be told apart."
    return f"Of two rows, one with {task} and one without, the one with it is ranked higher so often: {', '.join(told)}."


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
