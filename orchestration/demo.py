"""The daily job on a whole log, from its files to a served and monitored champion, in one process.

Every day is ingested and sampled; the last two mature days that share no judged row are retrained for and judged, so that
the first champion is challenged once; then the champion's bento answers the last judged day's requests over HTTP, and what it
answered is landed, joined with what followed, and held against the champion's training window. What is unchanged is not done
again.
"""

from __future__ import annotations

import time

from assets import lake, registry, replay
from models.contract import Contract
from models.home import Home
from orchestration import days, log_source, runs, summary
from orchestration.progress import Progress

JUDGED = 2


def demo(contract: Contract, home: Home, progress: Progress, *, source: str, log: str, again: str) -> summary.Summary:
    """Run it, print the table, write and return the summary. `again`: what a person adds to a command for this data set.

    Raises ValueError or runs.RunFailed with words for people.
    """
    began = time.monotonic()
    with runs.opened(contract, home, progress, source=source, log=log) as line, progress:
        progress.heading(f"{contract.name}: {contract.description or 'daily job'}")
        log_source.ready(contract, home, log, progress)
        line.take_in()
        every = days.of_log(home, contract)
        line.data_days(every[0], every[-1])
        able = days.to_judge(home, contract)
        if few := days.cut_off(home, contract, able[-1]) if len(able) > 1 else "":
            progress.heading(f"{able.pop()} is not judged, as it looks cut off: {few}")
        judged = days.apart(able, contract.training.judged_days)[-JUDGED:]
        for day in judged:
            progress.heading(f"judged day {day}")
            line.judged_day(day)
        reigning = registry.champion(home)
        if reigning is not None:
            progress.heading("served, replayed, monitored")
            _replay(home, contract, judged[-1], reigning.bento, progress)
            line.monitored_day(judged[-1])
        lake.refresh_catalogue(home)
        told = summary.summarise(
            home, contract, source=log or str(home.raw), days=every, judged_day=judged[-1], steps=progress.steps
        )
    lake.write_json(home.summary, told)
    summary.show(progress.console, home, told, serve=f"make serve{again}")
    took = time.monotonic() - began
    done = (
        f"{len(told['recomputed'])} steps did work" if told["recomputed"] else "nothing had changed, so nothing was recomputed"
    )
    progress.console.print(f"\n{done}; {took:.0f} s")
    return told


def _replay(home: Home, contract: Contract, day: str, bento: str, progress: Progress) -> None:
    with progress.timed(f"replay {day}") as worked:
        _, ran = replay.replay(home, contract, day, bento, say=progress.say)
        worked.append(int(ran))
