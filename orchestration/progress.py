"""What a person sees while a command works: one line that moves, and one that stays for every step that ended.

Dagster's own log lines stay in its instance, for the UI. While a step runs Dagster sends the process's output to a file, so
the terminal is kept open under another descriptor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.status import Status

OFTEN_S = 20.0
WIDE = 160
"""Columns where the output is no terminal: a line is not broken for a width that nobody has."""


@dataclass
class Step:
    """A step that ended: seconds it took, partitions that did work."""

    name: str
    seconds: float
    recomputed: int


@dataclass
class Progress:
    """Tells the steps of runs and of plain functions on the terminal, and keeps what they took."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    _status: Status | None = None
    _told: float = 0.0

    @classmethod
    @contextmanager
    def on_terminal(cls) -> Iterator[Progress]:
        """One that tells what it is told on this process's output, whatever becomes of that meanwhile."""
        with os.fdopen(os.dup(1), "w") as terminal:
            yield cls(Console(file=terminal, highlight=False, width=None if terminal.isatty() else WIDE))

    def __enter__(self) -> Progress:
        self._status = self.console.status("")
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status:
            self._status.stop()
        self._status = None

    def heading(self, text: str) -> None:
        self.console.print(f"[bold]{escape(text)}[/bold]")

    def say(self, text: str) -> None:
        """The line that moves; where the output is no terminal, a line every `OFTEN_S` seconds."""
        line = text.splitlines()[0] if text else ""
        if self._status:
            self._status.update(escape(line))
        if not self.console.is_terminal and time.monotonic() - self._told > OFTEN_S:
            self._told = time.monotonic()
            self.console.print(f"  … {escape(line)}")

    def ended(self, name: str, seconds: float, recomputed: int, note: str = "") -> None:
        """The line that stays."""
        self.steps.append(Step(name, seconds, recomputed))
        done = (
            f"[green]✓[/green] {escape(name):<34} {seconds:6.1f} s"
            if recomputed
            else f"[dim]· {escape(name):<34} unchanged[/dim]"
        )
        self.console.print(f"  {done}  {escape(note)}".rstrip())

    @contextmanager
    def timed(self, name: str) -> Iterator[list[int]]:
        """Time a plain function; append to the list what it did (partitions, 0 for nothing)."""
        began, worked = time.monotonic(), list[int]()
        self.say(name)
        yield worked
        self.ended(name, time.monotonic() - began, sum(worked))

    def listener(self, label: str) -> _Listener:
        return _Listener(self, label)


@dataclass
class _Listener:
    """What Dagster calls with every event of one run; `label` (a day or range) goes behind each step's name."""

    progress: Progress
    label: str
    worked: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if entry.step_key:
                self.progress.say(f"{self._named(entry.step_key)}: {entry.user_message}")
            return
        kind, step = event.event_type, event.step_key
        if step is None:
            return
        if kind == dg.DagsterEventType.STEP_START:
            self.progress.say(self._named(step))
        elif kind == dg.DagsterEventType.ENGINE_EVENT and "pool" in event.engine_event_data.metadata:
            self.progress.say(f"{self._named(step)}: waits for another training in this DTRN_HOME, since one runs at a time")
        elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
            metadata = event.step_materialization_data.materialization.metadata
            told, note = metadata.get("recomputed"), metadata.get("note")
            self.worked[step] = int(told.value) if told is not None and isinstance(told.value, int) else 0
            self.notes[step] = str(note.value) if note is not None else ""
        elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                stops = check.blocking and check.severity == dg.AssetCheckSeverity.ERROR  # its words then end the command
                said = "failed" if stops else escape(check.description or "failed")
                self.progress.console.print(f"  [yellow]![/yellow] check {escape(check.check_name)}: {said}")
        elif kind == dg.DagsterEventType.STEP_SUCCESS and step in self.worked:
            seconds, worked = event.step_success_data.duration_ms / 1000, self.worked[step]
            self.progress.ended(self._named(step), seconds, worked, self.notes[step])

    def _named(self, step: str) -> str:
        """The step without the data set's prefix, and its days."""
        return f"{step.split('__', 1)[-1]} {self.label}".rstrip()
