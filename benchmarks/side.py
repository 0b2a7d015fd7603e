"""One side of the training benchmark as a process: `python benchmarks/side.py FILE LOG ITEMS BATCH SEED THREADS [DEVICE]`.

FILE defines `Trainer` (`ours.py`, `peer.py`). It is made of the log; then each line of standard input is one turn, JSON of what
`pass_over` takes, and is answered by a line of what that gave. While no line comes, the process waits and takes no core, so two
sides alternate in one run. Nothing but torch and the standard library is imported here: the peer's environment has not ours.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import resource
import sys
from pathlib import Path

import torch


def peak_bytes():
    """The most memory that this program held at once.

    Linux starts `ru_maxrss` of a process at what the process that started it held, so there the kernel's own mark is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(file, log, items, batch, seed, threads, *device):
    torch.set_num_threads(int(threads))

    def answer(data):
        print(json.dumps(data), file=answers, flush=True)

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print as they train
        trainer = module(file).Trainer(Path(log), int(items), int(batch), int(seed), *device)
        answer({"first_batch": trainer.first_batch, "versions": versions()})
        for line in sys.stdin:
            answer({**trainer.pass_over(**json.loads(line)), "peak_bytes": peak_bytes()})


def module(file):
    """The module that a file is."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def versions():
    """Of what does the work, where it is installed."""
    there = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    names = ("torch", "torch-rechub", "numpy", "pandas", "scikit-learn")
    return {"python": sys.version.split()[0]} | {name: there[name] for name in names if name in there}


if __name__ == "__main__":
    main(*sys.argv[1:])
