"""Simulated logs that a benchmark learns from: made once by the project's own commands, ingested and sampled as any log is."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from assets import simulator
from models.home import Home

ROOT = Path(__file__).resolve().parent.parent
SIMULATED = "simulated"


@dataclass(frozen=True)
class World:
    """One simulated log: about `impressions` rows on each of the contract's days; what the conflicts are: `assets.past`.

    As many impressions a user and an item as by the simulator's defaults; nine days of them are over 250,000.
    """

    seed: int
    sign_conflict: float
    selection_conflict: float
    users: int = 4_350
    items: int = 8_700
    impressions: int = 29_000

    @property
    def name(self) -> str:
        return f"sign {self.sign_conflict:g}, selection {self.selection_conflict:g}, seed {self.seed}"

    def home(self, root: Path) -> Home:
        """Its home below `root`, with samples; whatever is there and unchanged is not made again.

        Raises subprocess.CalledProcessError when a command fails, with what it said on the terminal.
        """
        place = root / f"sign-{self.sign_conflict:g}-selection-{self.selection_conflict:g}-seed-{self.seed}-{self.impressions}"
        home = Home(place.absolute(), SIMULATED)
        wanted = {name: getattr(self, name) for name in self.__dataclass_fields__}
        options = [word for name, value in wanted.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        if simulator.asked(home.truth) != wanted:
            _dtrn("simulate", *options, "--home", str(home.root))
        _dtrn("backfill", "--home", str(home.root))
        return home


def _dtrn(*words: str) -> None:
    here = {name: value for name, value in os.environ.items() if name not in ("LOG", "DATASET", "DTRN_HOME")}
    subprocess.run([ROOT / "dtrn", *words, "--dataset", SIMULATED], cwd=ROOT, env=here, check=True)
