"""What every asset needs to know: which contract, which home, which log. And how a person's mistake reads in the UI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from assets import lake
from models.contract import Contract, ContractError, load
from models.home import Home, unusable


class Project(dg.ConfigurableResource["Project"]):
    """One data set of one home.

    contract: name in `datasets/` or path of a TOML · root: `DTRN_HOME` · log: file, folder or glob of the source files;
    empty means the data set's own `raw` folder.
    """

    contract: str
    root: str
    log: str = ""

    @property
    def terms(self) -> Contract:
        """The contract itself."""
        return load(self.contract)

    @property
    def home(self) -> Home:
        return Home(Path(self.root), self.terms.name)

    @property
    def source(self) -> str:
        return self.log or str(self.home.raw)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that are meant for people into a failure without a stack trace.

    Only a `lake.Transient` is tried again, where the asset has a retry policy: a mistake would be the same the next time.
    """
    try:
        yield
    except (ContractError, lake.Blocked, lake.Missing, lake.Transient, ValueError) as error:
        raise dg.Failure(description=str(error), allow_retries=isinstance(error, lake.Transient)) from error
    except OSError as error:
        if words := unusable(error):
            raise dg.Failure(description=words, allow_retries=False) from error
        raise
