"""Drift: what a day's served requests and predictions look like beside the training window of the model that served them.

Each field gets a verdict of its own; that half of the columns moved is none. The score is Evidently's PSI (population
stability index, Σ (p - q)·ln(p / q) over bins), on bins that the reference fixes: the 20 most frequent keys of a feature or
context field and 'other'; an empty history, then quantiles of its length; deciles of a probability. Equal-width bins, which
Evidently would choose for numbers, put nearly all of a rare task's probabilities into one. Two samples of one distribution
have a PSI of about (bins - 1)·(1/n + 1/m), which is granted on top of `monitoring.drift_share`; n and m count users,
because the rows of one user are no independent draws. Of few users that average says little: Evidently takes a bin that
nobody fell into for a share of 0.0001, and so a score is also what chance alone passes once in a thousand times at the most
(`by_chance`). One rare behaviour that nobody is told of any more moves little
mass, so it has a rule of its own: no served history of it at all, where chance would give that once in a thousand.

The weekday is not compared: all rows of one day have the same, so beside any window it is another distribution. A list is one
field, of which each row counts with one of its entries.

Inputs are compared with all days of the window. History lengths: with those of its days before which the log is at least
`histories.days` old, since the start of a log cuts histories short; the last day at least. What the model makes of its inputs
(its probabilities, and which ids it does not know): with what was held out for early stopping, which it was not fitted on; of
the others it knows every id.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assets import drift_bins, drift_page, drift_runs, evaluation, lake, overview, registry, samples
from assets.asking import Asking
from assets.project import Project, explained
from models.contract import Contract
from models.home import Home
from models.requests import NULL_KEY, Requests
from models.window import read_requests

if TYPE_CHECKING:  # torch takes seconds, and most of what imports this module measures nothing
    from evidently.core.report import Snapshot

    from models.artifact import NeuralRanker

CODE = (
    "assets/drift.py",
    "assets/drift_bins.py",
    "assets/asking.py",
    "assets/drift_page.py",
    "assets/drift_runs.py",
    "models/artifact.py",
    "models/network.py",
    "models/window.py",
)
SECTIONS = ("monitoring",)
ROWS = 20_000
CHANCE = 1e-3
DRAWS = 10_000
EMPTY = 1e-4
"""The share that Evidently takes an empty bin for."""
METHOD = "psi"
OF_THE_DAY = {"weekday"}
"""Derived fields that are the same at every moment of a day."""
DRIFTED = (
    "Read the day's report (`make reports`, or the page that is linked on the asset): if the log or the service changed, mend "
    "that; if the world did, retrain for a later day: the model learns what is usual now"
)
Texts = Mapping[str, Mapping[int, str]]
NO_TEXTS: Texts = {}
BINNING: dict[str, Callable[..., drift_bins.Bins]] = {
    "history": drift_bins.lengths,
    "unknown": drift_bins.unknown,
    "prediction": drift_bins.probabilities,
}


@dataclass(frozen=True)
class Field:
    """The verdict on one field. `reference`, `served`: share of rows per bin, by its label; `users` of each side."""

    kind: str
    score: float
    threshold: float
    drifted: bool
    method: str
    note: str
    reference: dict[str, float]
    served: dict[str, float]


def measure(home: Home, contract: Contract, day: str) -> tuple[lake.Manifest, bool]:
    """The drift verdict of one day at `home.drift` and its page at `home.drift_report`; (manifest, whether work was done).

    Only rows of the model that served most of the day are compared; `others` counts the rest. A day on which nothing was
    served has no fields. Raises lake.Missing or lake.Blocked when predictions, the model or its window may not be read.
    """
    from models import artifact

    inputs = {"predictions": lake.require(home, "predictions", day).content}
    outcome = lake.read(home, "outcomes", day)
    mature = outcome is not None and not outcome.blocked and outcome.detail["mature"]
    inputs["outcomes"] = outcome.content if outcome and mature else "not mature"
    if outcome and mature:  # what is measured of the same rows may be measured anew
        inputs["measured"] = hashlib.sha256(json.dumps(outcome.detail["served"]).encode()).hexdigest()[:16]
    served = pq.read_table(home.predictions(day), partitioning=None).to_pandas()
    tag = _most(served["model"])
    ranker, judged_day, days, unread = None, None, [], ""
    if tag:
        judged_day = tag.split(":")[1][:10]
        try:
            ranker = artifact.load(registry.artifact(home, tag))
        except artifact.OtherVersion as error:  # served by its bento's own copy of the code; measured it cannot be
            unread = str(error)
        inputs["model"] = tag
    if ranker is not None and judged_day is not None:
        days = ranker.contract.training_days(judged_day)
        inputs |= samples.window_inputs(home, ranker.contract, days)
    if not home.drift_report(day).is_file() or (ranker is not None and not home.drift_run(day).is_file()):
        home.drift(day).unlink(missing_ok=True)  # page and run are made with the numbers

    def make(path: Path) -> dict[str, Any]:
        verdict: dict[str, Any] = {"day": day, "model": tag, "judged_day": judged_day, "fields": {}, "drifted": []}
        verdict["unread"] = unread
        verdict["served"] = outcome.detail["served"] if outcome and mature else {}
        verdict["judged"] = _judged(home, tag)
        details = ""
        if ranker is not None:
            mine = served[served["model"] == tag]
            verdict["rows"] = {"served": len(mine), "others": len(served) - len(mine), "users": int(mine["user"].nunique())}
            window = reference(home, ranker, days)
            verdict["share"] = share = contract.monitoring.drift_share
            texts = Asking.of_days(home, ranker.contract, days).texts
            fields, snapshot = compare(ranker.contract, window, online(ranker, mine), share, day=day, texts=texts)
            details = snapshot.get_html_str(False)
            drift_runs.save(home, contract, kinds(ranker.contract), day, snapshot)
            verdict["fields"] = {name: asdict(f) for name, f in fields.items()}
            verdict["drifted"] = [name for name, f in fields.items() if f.drifted]
            verdict["left_out"] = [name for name in ranker.contract.context_fields if name in OF_THE_DAY]
            verdict["window"] = {"first": days[0], "last": days[-1], "rows": len(window["context"])}
        else:
            drift_runs.remove(home, day)
        path.write_text(json.dumps(verdict, indent=1, allow_nan=False) + "\n")
        with lake.replacing(home.drift_report(day)) as page:
            page.write_text(drift_page.render(verdict, details))
        counts = {"rows": len(served), "fields": len(verdict["fields"]), "drifted": len(verdict["drifted"])}
        return {"counts": counts, "detail": {"model": tag, "drifted": verdict["drifted"]}}

    return lake.build(
        home, "drift", day, home.drift(day), make,
        inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest(*SECTIONS),
    )  # fmt: skip


def kinds(contract: Contract) -> dict[str, str]:
    """Field → what it is: context, item, user, unknown, history or prediction."""
    return (
        dict.fromkeys((n for n in contract.context_fields if n not in OF_THE_DAY), "context")
        | dict.fromkeys(contract.item_fields[1:], "item")
        | dict.fromkeys(contract.user_fields[1:], "user")
        | {f"history_length_{a}": "history" for a in contract.actions}
        | {"unknown_item": "unknown", "unknown_user": "unknown"}
        | {f"p_{t}": "prediction" for t in contract.task_names}
    )


def reference(home: Home, ranker: "NeuralRanker", days: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Kind of field → at most ROWS rows of the days of the window `days` that it is compared with; always the same ones.

    Each frame has the columns of `kinds` that it stands for, and `user`.
    """
    contract = ranker.contract
    old = str(contract.calendar.first_day + timedelta(days=contract.histories.days))
    uncut = [d for d in days if d >= old] or days[-1:]
    stopping = samples.held_out(home, days, contract.training.judged_days)
    whole, aged, last = (read_requests(home, contract, part) for part in (days, uncut, stopping))
    last = thinned(last)
    inputs, lengths, held_out = (_frame(ranker, part) for part in (thinned(whole), thinned(aged), last))
    held_out[[f"p_{t}" for t in contract.task_names]] = ranker.as_trained(whole).score(last)
    return {
        **dict.fromkeys(("context", "item", "user"), inputs),
        "history": lengths,
        **dict.fromkeys(("unknown", "prediction"), held_out),
    }


def online(ranker: "NeuralRanker", predictions: pd.DataFrame) -> pd.DataFrame:
    """The same columns of what was served, at most ROWS rows, of whole requests. Raises ValueError where one is missing."""
    wanted = kinds(ranker.contract)
    known = ranker.vocabulary.rows("item", predictions["item"].to_numpy(np.int64)) > 0
    out = predictions.assign(unknown_item=(~known).astype(int), unknown_user=predictions["unknown_user"].astype(int))
    read = {*ranker.contract.context_columns, *ranker.contract.item_columns[1:], *ranker.contract.user_columns[1:]}
    if missing := sorted((read | set(wanted)) - set(out.columns)):
        raise ValueError(
            f"predictions lack {missing}, which the model reads: the contract changed since; retrain and serve anew"
        )
    request = pd.factorize(out["request_id"])[0]
    out = out[_spread(np.bincount(request, minlength=1))[request]].reset_index(drop=True)
    for name, feature in ranker.contract.features.items():
        slots = [name, *(f"{name}_{n}" for n in range(2, feature.slots + 1))]
        out[name] = one_entry(out[slots].to_numpy(np.int64))
    return out[[*wanted, "user"]]


def one_entry(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows, slots) of lists filled from the left → (rows,): one entry each, drawn evenly, always alike; of none NULL_KEY."""
    filled = np.maximum((slots != NULL_KEY).sum(axis=1), 1)
    drawn: NDArray[np.int64] = slots[np.arange(len(slots)), np.random.default_rng(0).integers(filled)]
    return drawn


def thinned(requests: Requests) -> Requests:
    """Whole requests, spread evenly over these, with at most ROWS samples together (at least one request)."""
    return requests.take(np.flatnonzero(_spread(np.diff(requests.offsets))))


def _spread(sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which requests of these sizes to keep: every k-th, within ROWS samples."""
    step = max(1, -(-int(sizes.sum()) // ROWS))
    kept = np.zeros(len(sizes), bool)
    kept[::step] = True
    within = np.cumsum(np.where(kept, sizes, 0)) <= ROWS
    within[:1] = True
    return kept & within


def _frame(ranker: "NeuralRanker", requests: Requests) -> pd.DataFrame:
    contract, request = ranker.contract, requests.request
    columns: dict[str, Any] = _fields(contract.context_fields, requests.context)
    columns |= _fields(contract.item_fields, requests.item)
    columns |= _fields(contract.user_fields, requests.user[request])
    lengths = (requests.end - requests.start)[request]
    columns |= {f"history_length_{a}": lengths[:, i] for i, a in enumerate(contract.actions)}
    columns["unknown_item"] = (ranker.vocabulary.rows("item", requests.item[:, 0]) == 0).astype(int)
    columns["unknown_user"] = (ranker.vocabulary.rows("user", requests.user[:, 0]) == 0).astype(int)[request]
    columns["user"] = requests.user[request, 0]
    return pd.DataFrame(columns)


def _fields(names: Sequence[str], keys: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Field → its values, of keys (rows, columns); `names`: each column's field."""
    owner = np.array(names)
    return {name: one_entry(keys[:, owner == name]) for name in dict.fromkeys(names)}


def compare(
    contract: Contract,
    reference: Mapping[str, pd.DataFrame],
    served: pd.DataFrame,
    drift_share: float,
    *,
    day: str,
    texts: Texts = NO_TEXTS,
) -> tuple[dict[str, Field], "Snapshot"]:
    """(the verdict on each field, drifted ones first; Evidently's run of `day`). Frames as `reference` and
    `online` give them; `texts`: field of kind text → key → what is written for it."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    columns = kinds(contract)
    sides = {n: [f[n].to_numpy(_type(kind)) for f in (reference[kind], served)] for n, kind in columns.items()}
    bins = {name: _binned(contract, texts, name, kind, *sides[name]) for name, kind in columns.items()}
    users = {kind: frame["user"].nunique() for kind, frame in [*reference.items(), ("served", served)]}
    chance = {kind: 1 / users["served"] + 1 / users[kind] for kind in reference}
    dead = {n for n, kind in columns.items() if kind == "history" and _dead(sides[n][0], sides[n][1], users["served"])}
    allowed = {
        n: max(
            round(drift_share + (len(bins[n].names) - 1) * chance[kind], 4),
            by_chance(np.array(list(bins[n].shares()[0].values())), round(1 / chance[kind])),
        )
        for n, kind in columns.items()
    }
    allowed |= dict.fromkeys(dead, 0.0)
    frames = zip(*([pd.Series(side, name=n, dtype=object) for side in b.labels()] for n, b in bins.items()), strict=True)
    definition = DataDefinition(categorical_columns=list(columns))
    before, now = (Dataset.from_pandas(pd.concat(frame, axis=1), data_definition=definition) for frame in frames)
    metrics = [ValueDrift(column=n, method=METHOD, threshold=t) for n, t in allowed.items()]
    counted = DriftedColumnsCount(columns=list(columns), method=METHOD, per_column_threshold=allowed)
    report = Report([counted, *metrics], include_tests=False)
    # Noon: the same date wherever it is read.
    snapshot = report.run(now, before, timestamp=datetime.fromisoformat(f"{day}T12:00"), name=day)
    scores = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"] if "column" in m["config"]}
    fields = {}
    for name, kind in columns.items():
        means = [float(side.mean()) for side in sides[name]]
        shares = bins[name].shares()
        fields[name] = Field(
            kind=kind,
            score=round(scores[name], 4),
            threshold=allowed[name],
            drifted=scores[name] >= allowed[name],
            method=METHOD + (", all empty" if name in dead else ""),
            note=drift_page.meaning(name, kind, means, shares, name in dead),
            reference=shares[0],
            served=shares[1],
        )
    ordered = dict(sorted(fields.items(), key=lambda f: (not f[1].drifted, f[1].threshold - f[1].score)))
    return ordered, snapshot


def by_chance(shares: NDArray[np.float64], users: int) -> float:
    """The PSI that `users` draws from the bins' reference `shares` (bins,) stay below but for CHANCE of the times; simulated.

    An empty bin is filled as Evidently fills it.
    """
    p = shares[shares > 0] / shares.sum()
    q = np.random.default_rng(0).multinomial(max(users, 1), p, size=DRAWS) / max(users, 1)
    least = np.min(q, axis=1, where=q > 0, initial=1, keepdims=True)
    q = np.where(q > 0, q, np.where(least <= EMPTY, least / 10**6, EMPTY))
    scores = ((q - p) * np.log(q / p)).sum(axis=1)
    return round(float(np.quantile(scores, 1 - CHANCE, method="higher")), 4) + 1e-4  # strictly above: few users, few scores


def _binned(contract: Contract, texts: Texts, field: str, kind: str, before: Any, now: Any) -> drift_bins.Bins:
    if kind in BINNING:
        return BINNING[kind](before, now)
    if contract.kind(field) == "number":
        return drift_bins.measures(before, now)
    return drift_bins.keys(before, now, texts.get(field))


def _type(kind: str) -> type:
    return np.float64 if kind == "prediction" else np.int64


def _dead(reference: NDArray[Any], served: NDArray[Any], users: int) -> bool:
    filled = float((reference > 0).mean())
    return not (served > 0).any() and (1 - filled) ** users < CHANCE


def _most(models: pd.Series) -> str | None:
    counts = models.value_counts()
    return max(counts[counts == counts.max()].index) if len(counts) else None


def _judged(home: Home, tag: str | None) -> dict[str, Any]:
    """What the model's own verdict measured, {task: {auc, auc_low, auc_high, …}}; empty when it is not there any more."""
    if tag is None:
        return {}
    version = tag.split(":")[1]
    if lake.read(home, "verdict", version[:10]) is None:
        return {}
    models: dict[str, Any] = evaluation.read(home, version[:10])["models"]
    found: dict[str, Any] = models.get(version[11:].rsplit("-", 1)[0], {})
    return found


@dg.asset(
    deps=["predictions", "outcomes"],
    kinds={"evidently"},
    description="Served inputs and predictions beside the training window.",
)
def drift(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    home, contract = project.home, project.terms
    with explained():
        measured = [measure(home, contract, day) for day in context.partition_keys]
    last = measured[-1][0].partition
    verdict = json.loads(home.drift(last).read_text())
    return dg.MaterializeResult(
        metadata={
            "recomputed": sum(done for _, done in measured),
            **{name: sum(m.counts[name] for m, _ in measured) for name in ("rows", "fields", "drifted")},
            "overview": dg.MetadataValue.md(overview.markdown(home, last, verdict)),
            "report": dg.MetadataValue.url(home.drift_report(last).as_uri()),
            "run": dg.MetadataValue.url(drift_runs.address(home, last)),
            "summary": dg.MetadataValue.md(drift_page.markdown(verdict)),
        }
    )


@dg.asset_check(asset=drift, description="No field of the served day lies outside what the champion was trained on.")
def no_field_drifted(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    found = [(d, f) for d in context.partition_keys for f in lake.require(project.home, "drift", d).detail["drifted"]]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"drifted: {', '.join(dict.fromkeys(field for _, field in found))}. {DRIFTED}" if found else None,
        metadata={"expected": "none", "actual": ", ".join(f"{day}: {field}" for day, field in found) or "none"},
    )
