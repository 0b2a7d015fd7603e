"""Samples → artifacts: every candidate and every reference is retrained for a judged day, on days before it only.

The learning itself is in `models`; here is which days it may see, what the result depends on, and what a person is shown.
"""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from assets import lake, samples
from assets.project import Project, explained
from models import names, window
from models.contract import LEARNED_FROM, Contract
from models.days import span
from models.home import Home
from models.requests import Requests

NEURAL = ("models/window.py", "models/artifact.py")
COUNTED = ("models/window.py", "models/baselines.py")
"""What a result depends on, each with all that it imports of `models`; not this file, which only says what to read."""

REFERENCES = ("popularity", "lightgbm")
"""Models that are judged beside the others and never served."""

Progress = Callable[[str], None]


def train(
    home: Home, contract: Contract, name: str, judged_day: str, say: Progress = print, run: str = ""
) -> tuple[lake.Manifest, bool]:
    """The artifact of model or reference `name` for `judged_day`; (manifest, whether it was trained now).

    A model need not be listed by the contract: it is trained all the same, and never judged. `say` is told a line per epoch,
    `run` (the Dagster run) is noted in the manifest. Raises ValueError when the days before do not suffice, lake.Missing and
    lake.Blocked when one of them may not be read.
    """
    days = contract.training_days(judged_day)
    if len(days) < 2:
        raise ValueError(
            f"{name} for {judged_day}: needs two days or more whose labels are known before the days that are judged "
            f"(to train on, and to stop early on), and has {len(days)}; judge a later day"
        )
    inputs = samples.window_inputs(home, contract, days)

    neural = name not in REFERENCES
    code = lake.code_hash(*(NEURAL if neural else COUNTED))
    terms = contract.digest(*LEARNED_FROM)

    def make(path: Path) -> dict[str, Any]:
        held_out = samples.held_out(home, days, contract.training.judged_days)
        fit = window.read_requests(home, contract, samples.fitted(days, held_out))
        stop = window.read_requests(home, contract, held_out)
        if neural:
            # A checkpoint is only good for the very inputs that it was made from, so their hash is its name.
            origin = hashlib.sha256(json.dumps([inputs, code, terms]).encode()).hexdigest()[:16]
            _neural(contract, name, fit, stop, path, home.checkpoint(name, judged_day) / origin, say)
        else:
            from models import baselines  # so is lightgbm

            model = (
                baselines.Popularity.fit(contract, fit) if name == "popularity" else baselines.LightGBM.fit(contract, fit, stop)
            )
            model.save(path)
        return {"counts": {"training": len(fit), "validation": len(stop)}, "detail": {"days": days, "held_out": held_out}}

    built = lake.build(
        home, name, judged_day, home.model(name, judged_day), make, inputs=inputs, code=code, contract=terms, run=run
    )
    shutil.rmtree(home.checkpoint(name, judged_day), ignore_errors=True)
    return built


def _neural(contract: Contract, name: str, fit: Requests, stop: Requests, path: Path, checkpoint: Path, say: Progress) -> None:
    from models import artifact, config, training  # torch is slow to import, and a day without news needs none
    from models.checkpoint import Epoch

    begun = list[int]()

    def report(epoch: Epoch) -> None:
        aucs = ", ".join(f"{task} {value:.3f}" for task, value in epoch.validation_auc.items())
        resumed = f" (goes on from the checkpoint of epoch {epoch.epoch - 1})" if not begun and epoch.epoch > 1 else ""
        begun.append(epoch.epoch)
        say(f"epoch {epoch.epoch}{resumed}: validation score {epoch.score:.4f} (1 = base rate only), AUC {aucs}")

    recipe = config.named(name, contract.training.width)
    artifact.save(path, name, training.train(recipe, contract, fit, stop, checkpoint=checkpoint, report=report))


def validation(home: Home, name: str, judged_day: str) -> list[str]:
    """What the training of a model came to, in lines for people: its best epoch on what stopped it early."""
    from models import artifact

    spec = artifact.read_spec(home.model(name, judged_day))
    best, kept = _kept(spec)
    held_out = lake.require(home, name, judged_day).detail["held_out"]
    tasks = [
        f"{task}: AUC {_figure(auc)}, log loss {_figure(best['validation_loss'][task])}"
        for task, auc in best["validation_auc"].items()
    ]
    stopped = f"early-stopping day{'s' * (len(held_out) > 1)} {span(held_out)}"
    return [
        f"{name} for {judged_day}: {spec['parameters']:,} parameters, {kept}; on its {stopped}:",
        f"validation score {best['score']:.4f} (1 = base rate only)",
        *tasks,
    ]


def _kept(spec: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The epoch whose weights an artifact has, and a word on it."""
    best = min(spec["history"], key=lambda epoch: epoch["score"])
    return best, f"epoch {best['epoch']} of {len(spec['history'])} kept"


def learning_curve(history: list[dict[str, Any]]) -> str:
    """Training loss and validation AUC per task over the epochs, as a markdown image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "validation_auc"), ("training loss", "validation AUC"), strict=True
    ):
        for task in history[0][key]:
            axes.plot([e["epoch"] for e in history], [e[key][task] for e in history], marker="o", markersize=3, label=task)
        axes.set(title=title, xlabel="epoch")
        axes.legend(frameon=False, fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![loss and AUC per epoch](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"


def _figure(value: float | None) -> str:
    """An AUC is null where what stops early has one class only."""
    return "one class" if value is None else f"{value:.4f}"


def _result(context: dg.AssetExecutionContext, project: Project, name: str) -> dg.MaterializeResult[Any]:
    home, contract, day = project.home, project.terms, context.partition_key
    with explained():
        if name in REFERENCES and name not in contract.training.references:
            return dg.MaterializeResult(
                metadata={"recomputed": 0, "left out": f"{name} is not in the contract's training section"}
            )
        manifest, done = train(home, contract, name, day, context.log.info, context.run.run_id)
    metadata: dict[str, Any] = {"recomputed": int(done), **manifest.counts, "days": ", ".join(manifest.detail["days"])}
    spec = json.loads((home.model(name, day) / "spec.json").read_text())
    if history := spec.get("history"):
        rows = [
            f"| {e['epoch']} | {e['score']:.4f} | "
            + " | ".join(f"{e['loss'][t]:.4f} | {_figure(e['validation_auc'][t])}" for t in contract.tasks)
            + " |"
            for e in history
        ]
        head = "| epoch | score | " + " | ".join(f"{t}: loss | AUC" for t in contract.tasks) + " |"
        table = "\n".join([head, "|---" * (2 + 2 * len(contract.tasks)) + "|", *rows])
        metadata |= {
            "validation score": spec["validation_score"],
            "parameters": spec["parameters"],
            "note": f"{_kept(spec)[1]}, validation score {spec['validation_score']:.4f}",
            "epochs": dg.MetadataValue.md(table),
            "curve": dg.MetadataValue.md(learning_curve(history)),
        }
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    deps=["samples", "histories"],
    kinds={"numpy"},
    description="Smoothed item popularity per task: the reference to beat first.",
)
def popularity(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    return _result(context, project, "popularity")


@dg.asset(
    deps=["samples", "histories"],
    kinds={"lightgbm"},
    description="Gradient boosting on counts, recencies and statistics: a reference.",
)
def lightgbm(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    return _result(context, project, "lightgbm")


def candidate(dataset: str, name: str) -> dg.AssetsDefinition:
    """The asset of one model of a data set: which there are is the contract's to say, so `orchestration` asks for each."""
    bottom, head = names.split(name)

    @dg.asset(
        key=[dataset, names.identifier(name)],
        deps=[[dataset, "samples"], [dataset, "histories"]],
        kinds={"torch"},
        pool="gpu",
        description=f"Candidate: bottom {bottom}, head {head} (docs/models.md).",
    )
    def trained(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
        return _result(context, project, name)

    return trained
