"""What Dagster loads (`workspace.yaml`): the data set that DATASET, LOG and DTRN_HOME name, read once. Nothing imports this."""

import os

from models.contract import load
from models.home import Home
from orchestration.build import build

DATASET = os.environ.get("DATASET") or "simulated"

contract = load(DATASET)
defs = build(contract, Home.from_environment(contract.name), source=DATASET, log=os.environ.get("LOG", ""))
