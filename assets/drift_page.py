"""The drift report as a page: what moved and what that means in plain words on top, Evidently's charts below. Opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
<style>
.drift { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff; max-width: 1150px; margin: 0 auto; }
.drift { padding: 28px 24px 8px; }
.drift h1 { font-size: 26px; margin: 0 0 4px; }
.drift h2 { font-size: 18px; margin: 28px 0 8px; }
.drift p { margin: 4px 0; }
.drift .quiet { color: #5b6b7b; }
.drift table { border-collapse: collapse; width: 100%; }
.drift td, .drift th { padding: 6px 14px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e8ee; }
.drift th { font-weight: 600; color: #5b6b7b; font-size: 13px; }
.drift td { font-variant-numeric: tabular-nums; }
.drift .moved { color: #b42318; font-weight: 600; }
.drift .calm { color: #2f7d4f; }
.drift svg { display: block; }
.drift ul { margin: 6px 0; padding-left: 20px; }
</style>
"""
KINDS = {
    "history": "history length",
    "prediction": "probability",
    "unknown": "known to the model",
    "item": "item feature",
    "user": "user feature",
    "context": "context",
}
UNTOLD = 0.5
"""Where chance alone needs as much of a score, a field that passes says nothing: it may have become another altogether."""
SIDES = {"item": "Of the items ranked", "user": "Of the rows, by who asked,", "context": "Of the rows"}
LOOKS = {"drifted": "moved", "quiet": "calm", "too few users": "quiet"}
"""What a field's verdict looks like on the page."""
Shares = dict[str, float]


def meaning(name: str, kind: str, means: Sequence[float], shares: tuple[Shares, Shares], dead: bool) -> str:
    """What the numbers say of this field, each (reference, served), in one or two sentences."""
    before, now = means
    if kind == "history":
        action = name.removeprefix("history_length_")
        if dead:
            return f"No served history holds any {action}; in training the mean was {before:.1f}. Is the service told of them?"
        return f"{now:.1f} events of {action} a history on average; in training {before:.1f}."
    if kind == "prediction":
        return f"{now:.4f} on average; on what training held out {before:.4f}."
    if kind == "unknown":
        who = name.removeprefix("unknown_")
        held_out = f"on what training held out {100 * before:.1f} %"
        return f"{100 * now:.1f} % of the rows name {who}s that the model does not know; {held_out}."
    reference, served = shares
    most = max(reference, key=lambda n: abs(served[n] - reference[n]))
    shift = f"{100 * served[most]:.1f} % have {name} {most}; in training {100 * reference[most]:.1f} %"
    return f"{SIDES[kind]} {shift}, the most that any moved."


def render(verdict: dict[str, Any], details: str) -> str:
    """The page of a drift verdict. `details`: Evidently's page, whose body ours opens; empty when nothing was compared."""
    own = f"{STYLE}<div class='drift'>{_head(verdict)}{_outcomes(verdict)}{_fields(verdict)}</div>"
    title = f"<title>Drift on {verdict['day']}</title>"
    if not details:
        return f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>{title}</head><body>{own}</body></html>"
    before, body, after = details.partition("<body>")
    if not body:
        raise ValueError("Evidently's page has no <body>: its version is not the one that this project pins; run make setup")
    return before.replace("<head>", f"<head>{title}", 1) + body + own + after


def markdown(verdict: dict[str, Any]) -> str:
    """The same in a few lines, for the UI."""
    lines = [_said(verdict)]
    lines += [f"- **{n}** ({f['score']:.2f}, allowed {f['threshold']:.2f}): {f['note']}" for n, f in _drifted(verdict)]
    return "\n".join(lines)


def _drifted(verdict: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(n, verdict["fields"][n]) for n in verdict["drifted"]]


def _said(verdict: dict[str, Any]) -> str:
    if verdict["model"] is None:
        return f"Nothing was served on {verdict['day']}: there is nothing to compare."
    if verdict["unread"]:
        return f"What {verdict['model']} was asked on {verdict['day']} is not compared with its training: {verdict['unread']}."
    count, fields = len(verdict["drifted"]), len(verdict["fields"])
    untold = sum(_state(verdict, field) == "too few users" for field in verdict["fields"].values())
    if untold == fields:
        return f"Of none of the {fields} fields of {verdict['day']} can be told whether it drifted: {_users(verdict)} too few."
    told = f" Of {untold} nothing can be told: {_users(verdict)} too few." if untold else ""
    return (
        f"{count or 'None'} of {fields} fields of {verdict['day']} drifted from what {verdict['model']} was trained on.{told}"
    )


def _users(verdict: dict[str, Any]) -> str:
    users = verdict["rows"]["users"]
    return "one user is" if users == 1 else f"{users:,} users are"


def _state(verdict: dict[str, Any], field: dict[str, Any]) -> str:
    if field["drifted"]:
        return "drifted"
    return "too few users" if field["threshold"] - verdict["share"] >= UNTOLD else "quiet"


def _head(verdict: dict[str, Any]) -> str:
    out = f"<h1>Drift on {escape(verdict['day'])}</h1><p>{escape(_said(verdict))}</p>"
    if verdict["model"] is None or verdict["unread"]:
        return out
    rows, window = verdict["rows"], verdict["window"]
    others = f" {rows['others']:,} rows of other models are not compared." if rows["others"] else ""
    out += (
        f"<p class='quiet'>{rows['served']:,} served rows of {rows['users']:,} users beside {window['rows']:,} rows of the "
        f"training window {window['first']} to {window['last']}.{others}</p>"
    )
    points = "".join(f"<li><b>{escape(n)}</b>: {escape(f['note'])}</li>" for n, f in _drifted(verdict))
    return out + (f"<ul>{points}</ul>" if points else "")


def _outcomes(verdict: dict[str, Any]) -> str:
    if verdict["model"] is None:
        return ""
    if not verdict["served"]:
        return "<h2>What followed</h2><p class='quiet'>The outcomes of this day are not known yet.</p>"
    rows = ""
    for model, tasks in verdict["served"].items():
        for task, m in tasks.items():
            judged = verdict["judged"].get(task) if model == verdict["model"] else None
            then = "–"
            if judged:
                then = _auc(judged)
            numbers = (_auc(m), then, _number(m["logloss"]), _number(m["ece"]))
            rows += _row("td", (escape(model), escape(task), *numbers, f"{m['positives']:,}", f"{m['negatives']:,}"))
    measured = ("served AUC (interval)", "AUC when judged (interval)", "log loss", "ECE", "positives", "negatives")
    names = ("model", "task", *measured)
    return f"<h2>What followed</h2><table>{_row('th', names)}{rows}</table>"


def _fields(verdict: dict[str, Any]) -> str:
    if not verdict["fields"]:
        return ""
    rows = ""
    for name, field in verdict["fields"].items():
        now = _state(verdict, field)
        state = f"<span class='{LOOKS[now]}'>{now}</span>"
        bars, told = _bars(field["reference"], field["served"]), escape(field["note"])
        cells = (escape(name), KINDS[field["kind"]], state, f"{field['score']:.3f}", f"{field['threshold']:.3f}", bars, told)
        rows += _row("td", cells)
    names = ("field", "what it is", "verdict", "score (PSI)", "allowed", "training (grey), served (blue)", "in words")
    weekday = " The weekday is not among them: all rows of one day have the same." if verdict["left_out"] else ""
    note = (
        "The score is 0 when both sides are spread alike over the bins; allowed is the contract's own share plus what so few "
        f"users move by chance.{weekday} Hover over a bar for its bin. Evidently's charts of every field are below."
    )
    return f"<h2>Field by field</h2><p class='quiet'>{note}</p><table>{_row('th', names)}{rows}</table>"


def _row(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def _bars(reference: Shares, served: Shares) -> str:
    """Paired bars, a pair a bin, in their order."""
    width, height = 190, 40
    step = width / len(reference)
    tallest = max([*reference.values(), *served.values()])
    out = ""
    for place, name in enumerate(reference):
        title = f"{escape(name)}: training {100 * reference[name]:.1f} %, served {100 * served[name]:.1f} %"
        for side, (shares, colour) in enumerate(((reference, "#aab4bf"), (served, "#2563eb"))):
            tall = height * shares[name] / tallest
            place_of = f"x='{(place + side * 0.42) * step:.1f}' y='{height - tall:.1f}'"
            out += (
                f"<rect {place_of} width='{step * 0.4:.1f}' height='{tall:.1f}' fill='{colour}'><title>{title}</title></rect>"
            )
    return f"<svg width='{width}' height='{height}' role='img'>{out}</svg>"


def _auc(measured: Mapping[str, Any]) -> str:
    """With its interval, where there is one: of few rows there is not, nor of outcomes that were joined before they had any."""
    told = _number(measured["auc"])
    if measured.get("auc_low") is None:
        return told
    return f"{told} ({_number(measured['auc_low'])} to {_number(measured['auc_high'])})"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
