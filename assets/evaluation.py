"""Candidates → verdict: the challenger, the reigning champion and the references, on the same rows of the judged day.

The challenger is the candidate with the best validation score, and the only candidate that sees the judged day: the best of
several on that day would be selection on the test. The rule is `models.judgement`; here is who is judged, on what, and how
it is shown. Nothing moves here: the winner is packaged and checked first, so a failing evaluation leaves the champion.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from assets import lake, registry, samples, training, verdict_charts, verdict_origin, verdict_page
from assets.project import Project, explained
from models import metrics
from models.config import FORMAT
from models.contract import LEARNED_FROM, Contract
from models.home import Home
from models.judgement import CHAMPION, LEVEL, MEAN, POPULARITY, RESAMPLES, decide, judge

CURVE_POINTS = 80
CODE = (
    *("assets/evaluation.py", "models/judgement.py", "models/metrics.py", "models/baselines.py"),
    *training.NEURAL,
)
PAGE_CODE = (
    *("assets/verdict_page.py", "assets/verdict_page.html"),
    *("assets/verdict_charts.py", "assets/verdict_origin.py"),
)
Verdict = dict[str, Any]


def evaluate(home: Home, contract: Contract, judged_day: str, run: str = "") -> tuple[lake.Manifest, bool]:
    """The verdict of `judged_day` at `home.verdict`, and its page; (manifest, whether it was judged now).

    `run` (the Dagster run) is noted in the manifest. Raises lake.Missing or lake.Blocked when a model or a day is not there,
    not mature or blocked, and ValueError when a model's scores are no probabilities or there is nothing to judge with.
    """
    days = contract.verdict_days(judged_day)
    inputs = samples.window_inputs(home, contract, days)
    for name in (*contract.training.candidates, *contract.training.references):
        inputs[name] = lake.require_current(home, name, judged_day).content
    reigning = registry.champion(home, before=judged_day)
    inputs[CHAMPION] = reigning.tag if reigning else "none"
    theirs, why_not = _terms_of(home, reigning.tag) if reigning else (contract, "")
    if theirs is not None and reigning is not None:
        why_not = _incomparable(contract, theirs) or _seen(theirs, reigning.judged_day, days)
    if theirs and not why_not:
        inputs |= samples.window_inputs(home, _read_by(contract, theirs), days)

    def make(path: Path) -> dict[str, Any]:
        verdict = _verdict(home, contract, judged_day, reigning, why_not, inputs)
        path.write_text(json.dumps(verdict, indent=1, allow_nan=False) + "\n")
        counts = {"samples": verdict["samples"]}
        return {"counts": counts, "detail": {"promote": verdict["promote"], "challenger": verdict["challenger"]["name"]}}

    manifest, judged = lake.build(
        home, "verdict", judged_day, home.verdict(judged_day), make,
        inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest(*LEARNED_FROM, "description"),
        run=run,
    )  # fmt: skip
    _page(home, manifest)
    return manifest, judged


def read(home: Home, judged_day: str) -> Verdict:
    """The verdict of a judged day. Raises lake.Missing when there is none."""
    lake.require(home, "verdict", judged_day)
    verdict: Verdict = json.loads(home.verdict(judged_day).read_text())
    return verdict


def challenger_of(home: Home, contract: Contract, judged_day: str) -> tuple[str, dict[str, float]]:
    """(the candidate with the lowest validation score, the contract's order deciding a tie; every candidate's score)."""
    from models import artifact

    scores: dict[str, float] = {
        n: float(artifact.read_spec(home.model(n, judged_day))["validation_score"]) for n in contract.training.candidates
    }
    if wrong := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise ValueError(
            f"{', '.join(wrong)} of {judged_day} has no finite validation score, so no challenger can be chosen; look at its "
            "validation loss per epoch, and retrain"
        )
    return min(scores, key=lambda name: scores[name]), scores


def curves(labels: NDArray[np.int8], scores: Mapping[str, NDArray[Any]], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By model and task: "roc", [false, true positive rates] at up to CURVE_POINTS points, and "calibration", [predicted,
    happened, rows] by bin. labels: (B, T); scores: (B, T) by model. One class gives empty rates.
    """
    return {
        name: {
            task: {
                "roc": _thinned(*metrics.roc(labels[:, t], values[:, t])),
                "calibration": [part.round(6).tolist() for part in metrics.calibration(labels[:, t], values[:, t])],
            }
            for t, task in enumerate(tasks)
        }
        for name, values in scores.items()
    }


def _thinned(x: metrics.Floats, y: metrics.Floats) -> list[list[float]]:
    """A curve from (0, 0) to (1, 1) at points about evenly spaced along x + y, its ends among them."""
    if not len(x):
        return [[], []]
    kept = np.unique(np.searchsorted(x + y, np.linspace(0, x[-1] + y[-1], CURVE_POINTS)))
    return [x[kept].round(4).tolist(), y[kept].round(4).tolist()]


def _verdict(
    home: Home, contract: Contract, judged_day: str, reigning: registry.Champion | None, why_not: str, inputs: dict[str, str]
) -> Verdict:
    from models import artifact, baselines
    from models.window import read_requests

    days = contract.verdict_days(judged_day)
    requests = read_requests(home, contract, days)
    challenger, validation = challenger_of(home, contract, judged_day)
    scores = {challenger: artifact.load(home.model(challenger, judged_day)).score(requests)}
    if reigning is not None and not why_not:
        champion = artifact.load(registry.artifact(home, reigning.tag))
        columns = [champion.tasks.index(task) for task in contract.task_names]
        asked = read_requests(home, _read_by(contract, champion.contract), days)
        scores[CHAMPION] = champion.score(asked)[:, columns]
    for name in contract.training.references:
        scores[name] = baselines.load(home.model(name, judged_day)).score(requests)
    users = requests.user[requests.request, 0]
    judgement = judge(
        requests.label, users, scores,
        tasks=contract.task_names, challenger=challenger, seed=contract.training.seed, resamples=RESAMPLES,
    )  # fmt: skip
    if why_not:
        judgement["reasons"].insert(1, f"The champion {reigning.tag if reigning else ''} could not be compared: {why_not}.")
    return {
        "dataset": contract.name,
        "description": contract.description,
        "shape": contract.shape,
        "meanings": {name: task.meaning for name, task in contract.tasks.items()},
        "judged_day": judged_day,
        "judged_days": days,
        "held_out": lake.require(home, challenger, judged_day).detail["held_out"],
        "challenger": {"name": challenger, "content": inputs[challenger]},
        "champion": {"tag": reigning.tag, "name": reigning.name, "judged_day": reigning.judged_day} if reigning else None,
        "promote": judgement["promote"],
        "reasons": judgement["reasons"],
        "validation": validation,
        "models": judgement["models"],
        "comparisons": judgement["comparisons"],
        "within": judgement["within"],
        "samples": judgement["samples"],
        "users": len(np.unique(users)),
        "method": {"resamples": RESAMPLES, "level": LEVEL, "calibration_bins": metrics.BINS},
        "curves": curves(requests.label, scores, contract.task_names),
    }


def _terms_of(home: Home, tag: str) -> tuple[Contract | None, str]:
    """The contract that a stored model was trained on, without its weights; or why today's code cannot score it."""
    path = registry.artifact(home, tag) / "spec.json"
    try:
        spec = json.loads(path.read_text())
        made, contract = spec["format"], spec["contract"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: holds no contract ({error}); materialise packaged_model of its judged day again, or mend the file"
        ) from None
    if made != FORMAT:
        return None, f"it is of format {made}, and this version of the program reads {FORMAT}; it is served until another wins"
    try:
        return Contract.model_validate(contract), ""
    except ValidationError as error:
        return None, f"its contract is of another version of the program ({error.error_count()} keys)"


def _read_by(contract: Contract, theirs: Contract) -> Contract:
    """`contract` with histories as long as the champion was trained on, which may be another length by now."""
    return contract.model_copy(update={"histories": theirs.histories, "behaviours": theirs.behaviours})


def _incomparable(contract: Contract, theirs: Contract) -> str:
    """Why a champion trained on the contract `theirs` cannot rank the rows of `contract`; empty when it can."""
    if missing := [task for task in contract.task_names if task not in theirs.task_names]:
        return f"it does not predict {', '.join(missing)}, and the contract now asks for that"
    for what in ("actions", "user_fields", "item_fields", "context_fields"):
        was, now = getattr(theirs, what), getattr(contract, what)
        if was != now:
            return f"it reads the {what.replace('_', ' ')} {list(was)}, and the contract now has {list(now)}"
    if other := [f for f in ("user", "item", *contract.features) if contract.kind(f) != theirs.kind(f)]:
        return f"it reads {', '.join(other)} as another kind of value than the contract now says"
    return ""


def _seen(theirs: Contract, judged_day: str, days: Sequence[str]) -> str:
    """Why a champion that won on `judged_day` cannot be judged on `days`, which it may have learned from; empty when it can."""
    known = theirs.label_days(theirs.training_days(judged_day)[-1])[-1]
    if known < days[0]:
        return ""
    return f"it has learned from what happened until {known}, and training.judged_days now has the verdict begin with {days[0]}"


def _page(home: Home, manifest: lake.Manifest) -> None:
    """Bring the page up to date with the verdict of `manifest`; no scoring, so new words need no new judging.

    It names runs, which differ from one making to the next, so it is no partition with a content hash: it says itself what
    it was made from.
    """
    day = manifest.partition
    verdict, path = read(home, day), home.verdict_page(day)
    origin = verdict_origin.origin(home, verdict, manifest)
    made_from = hashlib.sha256(f"{manifest.content}{lake.code_hash(*PAGE_CODE)}{origin}".encode()).hexdigest()
    if path.is_file() and made_from in path.read_text("utf-8"):
        return
    with lake.replacing(path) as part:
        part.write_text(verdict_page.render(verdict, origin, made_from), "utf-8")


VERDICT = "verdict"


def verdict(dataset: str, candidates: Sequence[str]) -> dg.AssetsDefinition:
    """The asset of a data set's verdict, which waits for these candidates.

    Made with all that it waits for: a dependency that Dagster's `map_asset_specs` adds is drawn, and not waited for.
    """

    @dg.asset(
        key=[dataset, VERDICT],
        deps=[[dataset, stage] for stage in ("samples", *training.REFERENCES, *candidates)],
        kinds={"html"},
        description="Who challenged whom on the judged day, and who won.",
    )
    def judged_day(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
        with explained():
            built = [evaluate(project.home, project.terms, day, context.run.run_id) for day in context.partition_keys]
        day = context.partition_keys[-1]
        return dg.MaterializeResult(
            metadata={
                "recomputed": sum(judged for _, judged in built),
                "page": dg.MetadataValue.path(str(project.home.verdict_page(day))),
                "page_link": dg.MetadataValue.url(project.home.verdict_page(day).as_uri()),
                **verdict_metadata(read(project.home, day)),
            }
        )

    return judged_day


def verdict_metadata(verdict: Verdict) -> dict[str, dg.MetadataValue]:
    """What the UI shows: outcome, reasons, numbers as a table, pictures inline."""
    drawn = verdict_charts.pngs(verdict)
    return {
        "promote": dg.MetadataValue.bool(verdict["promote"]),
        "challenger": dg.MetadataValue.text(verdict["challenger"]["name"]),
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in verdict["reasons"])),
        "samples": dg.MetadataValue.int(verdict["samples"]),
        **_means(verdict),
        "numbers": dg.MetadataValue.md(verdict_table(verdict)),
        **{name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{image})") for name, image in drawn.items()},
    }


def _means(verdict: Verdict) -> dict[str, dg.MetadataValue]:
    """The challenger's AUC, and how much higher it is than that of whom it must beat, over the tasks; for the UI to plot."""
    comparisons = verdict["comparisons"]
    rival = CHAMPION if CHAMPION in comparisons else POPULARITY
    aucs = [m["auc"] for m in verdict["models"][verdict["challenger"]["name"]].values() if m["auc"] is not None]
    told = {"mean_auc": float(np.mean(aucs)) if aucs else None}
    told |= {f"mean_difference_to_{rival}": comparisons[rival][MEAN]["difference"] if rival in comparisons else None}
    return {name: dg.MetadataValue.float(value) for name, value in told.items() if value is not None}


def verdict_table(verdict: Verdict) -> str:
    """The numbers by task and model as a markdown table."""
    lines = [
        "| task | model | AUC | interval | GAUC (users, rows) | log loss | ECE | positives | negatives |",
        "|" + " --- |" * 9,
    ]
    for model, tasks in verdict["models"].items():
        for task, m in tasks.items():
            figures = [_figure(m["auc"]), _gauc(m), _figure(m["logloss"]), _figure(m["ece"])]
            interval = f"{_figure(m['auc_low'])} to {_figure(m['auc_high'])}" if m["auc_low"] is not None else "not judged"
            cells = [task, model, figures[0], interval, *figures[1:], f"{m['positives']:,}", f"{m['negatives']:,}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _gauc(measured: Mapping[str, Any]) -> str:
    """Its value and how much of the day it speaks for: the users, and the rows, that have both classes."""
    if measured["gauc"] is None:
        return "–"
    return f"{measured['gauc']:.4f} ({measured['gauc_users_share']:.0%}, {measured['gauc_rows_share']:.0%})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


@dg.asset_check(asset=VERDICT, description="Every measure of every model is defined on the day.")
def finite_metrics(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    with explained():
        found = unmeasured(read(project.home, context.partition_key))
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} measures are not defined, since the day has no row, or rows of one class only, of their "
        "task. They are no part of the verdict; widen the task's behaviours or horizon, or judge a day with more rows"
        if found
        else None,
        metadata={"unmeasured": ", ".join(found) or "none"},
    )


@dg.asset_check(
    asset=VERDICT, description="The challenger is significantly worse than popularity on no task, and better on one."
)
def challenger_beats_popularity(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    with explained():
        verdict = read(project.home, context.partition_key)
        passed, why = against_popularity(verdict)
        helps = "" if passed else what_helps(project.home, project.terms, verdict)
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=f"{why}{helps}")


def unmeasured(verdict: Verdict) -> list[str]:
    """`model/task: measure` of everything that the day does not define: no rows, or rows of one class."""
    measures = ("auc", "logloss", "ece")
    return [
        f"{model}/{task}: {key}"
        for model, tasks in verdict["models"].items()
        for task, m in tasks.items()
        for key in measures
        if m[key] is None
    ]


def against_popularity(verdict: Verdict) -> tuple[bool, str]:
    """(whether the challenger beats popularity by the rule of promotion, the reason); fails when popularity was not scored."""
    if POPULARITY not in verdict["comparisons"]:
        return False, "popularity was not scored; add 'popularity' to training.references of the contract"
    beats, reasons = decide(verdict["challenger"]["name"], {POPULARITY: verdict["comparisons"][POPULARITY]})
    return beats, reasons[0]


def what_helps(home: Home, contract: Contract, verdict: Verdict) -> str:
    """What may make a challenger that does not beat popularity do so, each a sentence that holds for this log."""
    from models import artifact

    judged = [c for task, c in verdict["comparisons"].get(POPULARITY, {}).items() if c["judged"] and task != MEAN]
    if not judged:
        return ""
    name, day, days = verdict["challenger"]["name"], verdict["judged_day"], len(verdict["judged_days"])
    told = []
    wider = contract.most_judged is None or days < contract.most_judged
    if wider and all(c["high"] > 0 for c in judged) and any(c["difference"] > 0 for c in judged):
        users = f"{verdict['users']:,} users on {days} day{'s' * (days > 1)}"
        told.append(f"{users} may be too few to tell: more days judged together (training.judged_days) narrow the interval")
    history = artifact.read_spec(home.model(name, day))["history"]
    if len(history) == contract.training.epochs and min(history, key=lambda epoch: epoch["score"]) is history[-1]:
        told.append(f"its last epoch was its best: more of them (training.epochs, now {len(history)}) help")
    first = lake.require(home, name, day).detail["days"][0]
    before = (date.fromisoformat(first) - contract.calendar.first_day).days
    if before > 0.2 * contract.training.window_days:
        told.append(
            f"it learned from {first} on, and there are {before} days before it: more of them (training.window_days) may help"
        )
    else:
        told.append("it learned from every day that there is to learn from")
    said = "; ".join(told)
    return f" {said[0].upper()}{said[1:]}. Its loss by epoch stands on the asset of that model."
