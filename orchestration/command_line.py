"""`./dtrn`: the same things without the UI. Each command says what it does and shows an example with --help.

Heavy modules are imported by the command that needs them: --help must not wait for Dagster.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from models.contract import Contract, load
from models.home import Home, unusable

if TYPE_CHECKING:
    from orchestration.runs import Line

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_HOME = ROOT / ".dtrn"
OURS = ("assets", "models", "orchestration")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A behaviour log becomes a served, monitored champion, every day.",
)

Dataset = Annotated[str, typer.Option(envvar="DATASET", help="Name of a contract in datasets/, or the path of one.")]
Root = Annotated[Path, typer.Option("--home", envvar="DTRN_HOME", help="Folder of everything that is written.")]
Log = Annotated[str, typer.Option(envvar="LOG", help="The log: a file, a folder or a glob.")]
Port = Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port of 127.0.0.1.")]
Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The newest possible one when left out.")]


def _place(dataset: str, root: Path) -> tuple[Contract, Home]:
    contract = load(dataset)
    return contract, Home(root.absolute(), contract.name)


def _again(dataset: str, root: Path, *, log: bool = False) -> str:
    """What to add to a command of `make` to mean the same data set and home; with `log` that one that needs its log is told."""
    own = dataset != "simulated"
    said = {
        "DATASET": dataset if own else "",
        "LOG": "…" if log and own else "",
        "DTRN_HOME": "" if root == DEFAULT_HOME else str(root),
    }
    return "".join(f" {name}={value}" for name, value in said.items() if value)


@contextmanager
def _line(dataset: str, root: Path, log: str, model: str | None = None) -> Iterator[Line]:
    """The data set's line; with `model`, one that can train it though the contract does not list it."""
    from orchestration import jobs, log_source, runs
    from orchestration.progress import Progress

    contract, home = _place(dataset, root)
    contract = jobs.with_candidate(contract, model) if model else contract
    with (
        Progress.on_terminal() as progress,
        runs.opened(contract, home, progress, source=dataset, log=log_source.absolute(log)) as line,
        progress,
    ):
        yield line


@app.command(epilog="Example:  ./dtrn init logs/2019-Oct.csv.gz --out shop.toml --answer zone=Europe/Moscow")
def init(
    log: Annotated[str, typer.Argument(help="The log: a file, a folder or a glob.")],
    out: Annotated[Path, typer.Option(help="The contract to write, a .toml.")] = Path("my.toml"),
    answer: Annotated[list[str], typer.Option(metavar="KEY=VALUE", help="What it would ask, once for each answer.")] = [],  # noqa: B006
) -> None:
    """Draft a contract from the log itself, with the evidence for every guess beside it; asks where it could go two ways."""
    from orchestration import newcomer

    newcomer.write_draft(log, out, answer, Console(highlight=False, soft_wrap=True))


@app.command(epilog="Example:  ./dtrn check shop.toml logs/2019-Oct.csv.gz")
def check(
    contract: Annotated[str, typer.Argument(help="Name of a contract in datasets/, or the path of one.")],
    log: Annotated[str, typer.Argument(help="The log: a file, a folder or a glob.")],
) -> None:
    """Try a contract on a log's first 100,000 rows: what is valid and what is not, samples, positives, cost. Keeps nothing."""
    from orchestration import instance, newcomer

    os.environ.update(instance.QUIET)
    if not newcomer.tell_trial(load(contract), contract, log, Console(highlight=False, soft_wrap=True)):
        raise typer.Exit(1)


@app.command(epilog="Example:  ./dtrn demo --dataset taobao --log UserBehavior.csv")
def demo(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, log: Log = "") -> None:
    """The daily job on a whole log: ingested, retrained, judged, served, replayed, monitored. Ends with a table."""
    from orchestration import demo, log_source
    from orchestration.progress import Progress

    contract, place = _place(dataset, home)
    again = _again(dataset, home)
    with Progress.on_terminal() as progress:
        demo.demo(contract, place, progress, source=dataset, log=log_source.absolute(log), again=again)


@app.command(epilog="Example:  ./dtrn ingest --day 2026-03-13")
def ingest(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, log: Log = "", day: Day = None) -> None:
    """Take the log's files in, ingest one day, and sample it and the days whose labels it completes."""
    from orchestration import days, jobs, log_source

    with _line(dataset, home, log) as line:
        log_source.ready(line.contract, line.home, log, line.progress)
        line.take_in()
        chosen = days.base_day(line.home, line.contract, day)
        line.data_days(*jobs.ingested_with(line.contract, chosen))


@app.command(epilog="Example:  ./dtrn backfill --dataset taobao --log UserBehavior.csv")
def backfill(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, log: Log = "") -> None:
    """Take the log's files in, ingest and sample every day of it, in one run. What is unchanged is not made again."""
    from orchestration import days, log_source

    with _line(dataset, home, log) as line:
        log_source.ready(line.contract, line.home, log, line.progress)
        line.take_in()
        every = days.of_log(line.home, line.contract)
        line.data_days(every[0], every[-1])


@app.command(epilog="Example:  ./dtrn train --day 2026-03-13 --model dtrn+ple")
def train(
    dataset: Dataset = "simulated",
    home: Root = DEFAULT_HOME,
    day: Day = None,
    model: Annotated[
        str | None, typer.Option(metavar="BOTTOM+HEAD", help="This one only, listed by the contract or not (docs/models.md).")
    ] = None,
) -> None:
    """Retrain every candidate and reference for one judged day, on the days before it; or one model, and print its scores."""
    from assets import training
    from models import names
    from orchestration import days, jobs

    name = names.canonical(model) if model else None
    with _line(dataset, home, "", name) as line:
        chosen = days.judged_day(line.home, line.contract, day)
        line.judged_day(chosen, [names.identifier(name)] if name else jobs.trained(line.contract))
        for told in training.validation(line.home, name, chosen) if name else ():
            line.progress.console.print(f"  {told}", markup=False)


@app.command(epilog="Example:  ./dtrn evaluate --day 2026-03-13")
def evaluate(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, day: Day = None) -> None:
    """Judge one day's challenger against the champion; a winner is packaged, checked over HTTP and promoted."""
    from assets import evaluation
    from orchestration import days, jobs

    with _line(dataset, home, "") as line:
        chosen = days.judged_day(line.home, line.contract, day)
        line.judged_day(chosen, ("verdict", *jobs.PROMOTED))
        for reason in evaluation.read(line.home, chosen)["reasons"]:
            line.progress.console.print(f"  {escape(reason)}")
        line.progress.console.print(f"  {line.home.verdict_page(chosen)}")


@app.command(epilog="Example:  ./dtrn simulate --users 20000 --items 50000 --impressions 200000 --selection-conflict 1")
def simulate(
    dataset: Dataset = "simulated",
    home: Root = DEFAULT_HOME,
    users: Annotated[int, typer.Option(min=1)] = 1_500,
    items: Annotated[int, typer.Option(min=1)] = 3_000,
    impressions: Annotated[int, typer.Option(min=1, help="About so many a day.")] = 10_000,
    seed: int = 7,
    sign_conflict: Annotated[float, typer.Option(min=0, max=1, help="How far tasks want opposite signs of one signal.")] = 0.5,
    selection_conflict: Annotated[float, typer.Option(min=0, max=1, help="How far tasks need different past clicks.")] = 0.5,
) -> None:
    """Write a simulated log in the contract's shape to the data set's raw folder, where the other commands find it."""
    from orchestration import log_source
    from orchestration.progress import Progress

    contract, place = _place(dataset, home)
    sizes = {"users": users, "items": items, "impressions": impressions, "seed": seed}
    conflicts = {"sign_conflict": sign_conflict, "selection_conflict": selection_conflict}
    with Progress.on_terminal() as progress, progress:
        done = log_source.simulate(contract, place, progress, **sizes, **conflicts)
        progress.console.print(f"  {done.total.impressions:,} impressions on {len(done.files)} days in {place.raw}")


@app.command(epilog="Example:  ./dtrn serve --port 8080")
def serve(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, port: Port = 3001) -> None:
    """Serve the champion's bento on 127.0.0.1 until Ctrl-C: POST /rank, POST /events, GET /model."""
    from assets import registry, served
    from orchestration import instance

    contract, place = _place(dataset, home)
    os.environ.update(instance.QUIET)
    reigning = registry.champion(place)
    if reigning is None:
        raise ValueError(
            f"no champion of {contract.name} in {place.root}; make one first: make demo{_again(dataset, home, log=True)}"
        )
    console = Console(highlight=False, soft_wrap=True)  # a command that is cut in two cannot be pasted
    with served.start(place, reigning.bento, port=port, say=lambda text: console.print(f"  {text}", markup=False)) as service:
        console.print(f"{reigning.tag} answers, for example:", markup=False)
        user = '"somebody"' if "user" in contract.columns.text else "1"
        items = '"this", "that"' if "item" in contract.columns.text else "1, 2, 3"
        asked = f'{{"user_id": {user}, "item_ids": [{items}]}}'
        console.print(f"  curl -s {service.url}/rank -H 'content-type: application/json' -d '{asked}'", markup=False)
        console.print(f"  curl -s {service.url}/model", markup=False)
        console.print(f"Its log: {service.log}\nCtrl-C ends it.", markup=False)
        try:
            status = service.wait()
        except KeyboardInterrupt:
            return
        raise ValueError(f"the service ended by itself with status {status}")


@app.command(epilog="Example:  ./dtrn models --dataset taobao")
def models(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME) -> None:
    """List every change of champion, and the models in the registry."""
    from assets import registry

    contract, place = _place(dataset, home)
    console = Console(highlight=False)
    changes = registry.champions(place)
    told = "changes of champion, the last one reigns" if changes else "no champion yet"
    console.print(f"{contract.name}: {told}", markup=False)
    for change in changes:
        console.print(f"  {change.judged_day}  [bold]{escape(change.tag)}[/bold]")
        before = f"after {change.replaced}" if change.replaced else "the first one"
        console.print(Padding(escape(f"{before}; {change.when}, by {change.who}\n{change.why}"), (0, 0, 0, 14)))
    stored = place.stored("models")
    versions = sorted(path.name for path in stored.iterdir() if path.is_dir()) if stored.is_dir() else []
    console.print("registered models" if versions else "no registered model")
    for version in versions:
        lineage = registry.lineage(place, f"{stored.name}:{version}")
        console.print(f"  {lineage['judged_day']}  {stored.name}:{version}", markup=False)


@app.command(epilog="Example:  ./dtrn ui --port 3002")
def ui(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, log: Log = "", port: Port = 3000) -> None:
    """Dagster's UI and daemon with this data set loaded, on 127.0.0.1 until Ctrl-C."""
    from assets import served
    from orchestration import instance, log_source

    _, place = _place(dataset, home)
    served.require_free(port)
    instance.prepare(place)
    chosen = str(Path(dataset).absolute()) if dataset.endswith(".toml") else dataset
    environment = os.environ | {"DATASET": chosen, "DTRN_HOME": str(place.root), "LOG": log_source.absolute(log)}
    print(f"Dagster's UI: http://127.0.0.1:{port} (starts in some seconds; Ctrl-C ends it)", flush=True)
    os.chdir(ROOT)
    command = [
        "dagster",
        "dev",
        "-w",
        str(ROOT / "workspace.yaml"),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "--log-level",
        "warning",
    ]
    os.execve(sys.executable, [sys.executable, "-W", "ignore", "-m", *command], environment)


@app.command(epilog="Example:  ./dtrn reports --port 8001")
def reports(dataset: Dataset = "simulated", home: Root = DEFAULT_HOME, port: Port = 8000) -> None:
    """Evidently's UI over the drift reports: a project a data set, a run a day; on 127.0.0.1 until Ctrl-C."""
    from assets import served
    from orchestration import instance

    contract, place = _place(dataset, home)
    served.require_free(port)
    if not place.drift_project.is_dir():
        others = ", ".join(sorted(path.parent.name for path in place.root.glob("*/reports") if any(path.iterdir())))
        raise ValueError(
            f"no drift report of {contract.name} in {place.root}"
            + (f", but of {others}: say so with DATASET=" if others else "")
            + f"; make one first: make demo{_again(dataset, home, log=True)}"
        )
    address = f"http://127.0.0.1:{port}"
    print(
        f"{contract.name}: {address}/projects/{place.drift_project.name} (starts in some seconds; Ctrl-C ends it)", flush=True
    )
    # In the workspace itself: Evidently takes a configuration file out of the current folder.
    os.chdir(place.evidently)
    command = ["evidently.cli", "ui", "--host", "127.0.0.1", "--port", str(port), "--workspace", str(place.evidently)]
    os.execve(sys.executable, [sys.executable, "-P", "-W", "ignore", "-m", *command], os.environ | instance.QUIET)


@app.command(epilog="Example:  ./dtrn forget --dataset taobao --yes")
def forget(
    dataset: Dataset = "simulated",
    home: Root = DEFAULT_HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all that was made of one data set: lake, models, champions, reports, and a simulated log."""
    from orchestration import build, instance

    contract, place = _place(dataset, home)
    made = (place.base, place.stored("models"), place.stored("bentos"), place.drift_project)
    doomed = [path for path in made if path.exists()]
    if not doomed:
        print(f"nothing of {contract.name} in {place.root}")
        return
    print("to be deleted:", *doomed, sep="\n  ")
    if not yes:
        typer.confirm("Delete it?", abort=True)
    with instance.working(place, contract) as dagster:
        keys = build.build(contract, place, source=dataset).resolve_all_asset_keys()
        dagster.wipe_assets(list(keys))
        for path in doomed:
            shutil.rmtree(path)
    print("deleted. Dagster still lists the runs that were")


def main() -> None:
    """Run the command line. A mistake of a person is one line and status 1 (2 when the call itself is wrong)."""
    # Asked to end (by a service manager, `timeout`, `kill`): in order, as on Ctrl-C, so that no service outlives its command.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if mistake := _run():
        Console(stderr=True, highlight=False).print(f"[red]dtrn:[/red] {escape(mistake)}", soft_wrap=True)
        sys.exit(1)


def script() -> NoReturn:
    """`main` for `./dtrn`, which leaves without taking the interpreter apart.

    Ibis keeps connections in its tables' finalizers, and DuckDB 2.0 prints pages about each that is open at the very end.
    """
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run() -> str:
    """Why the command could not be done, empty when it was."""
    try:
        app(prog_name="dtrn")
    except Exception as error:
        if isinstance(error, OSError) and (words := unusable(error)):
            return words
        # ValueError and every error class of ours is written for people; anything else is a fault, and its trace is wanted.
        if not isinstance(error, ValueError) and type(error).__module__.split(".")[0] not in OURS:
            raise
        return str(error)
    return ""
