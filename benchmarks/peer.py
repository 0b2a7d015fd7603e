"""torch-rechub's side of the training benchmark, a process of its own in an environment of its own.

Imports nothing of this project and is imported by none: `benchmarks/side.py` runs it. It reads the encoded log's arrays, pads
each behaviour to the longest history that there is, and trains torch-rechub's MMOE with torch-rechub's trainer, optimiser and
data loader, all as they come.
"""

import time

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

EXPERTS, EXPERT_WIDTHS, TOWER, WIDTH = 4, (128, 64), 16, 16
CHUNK = 1 << 16


def padded(tokens, start, end, request):
    """(B, longest) int32 rows, 0 where there is no event; filled in chunks, so that nothing else of that size is made."""
    sizes = (end - start)[request]
    longest = max(1, int(sizes.max(initial=0)))
    out = np.zeros((len(request), longest), np.int32)
    step = np.arange(longest)
    for first in range(0, len(request), CHUNK):
        part = slice(first, first + CHUNK)
        there = step < sizes[part, None]
        place = start[request[part]][:, None] + step
        out[part][there] = tokens[place[there]]
    return out


class Trainer:
    """The log as torch-rechub reads it, its model and its trainer."""

    def __init__(self, log, items, batch, seed):
        self.batch = batch
        read = {path.stem: np.load(path) for path in log.glob("*.npy")}
        began = time.perf_counter()
        request = np.repeat(np.arange(len(read["time"]), dtype=np.int32), np.diff(read["offsets"]))
        actions = read["start"].shape[1]
        x = {f"user_{n}": column[request] for n, column in enumerate(read["user"].T.astype(np.int32))}
        x |= {f"item_{n}": column for n, column in enumerate(read["item"].T.astype(np.int32))}
        x |= {f"context_{n}": column for n, column in enumerate(read["context"].T.astype(np.int32))}
        sizes = {name: int(column.max()) + 1 for name, column in x.items()}
        sizes["item_0"] = rows = max(sizes["item_0"], items + 1)
        sparse = [SparseFeature(name, size, WIDTH) for name, size in sizes.items()]
        sequences = []
        for action in range(actions):
            x[f"history_{action}"] = padded(
                read[f"tokens-{action}"][:, 0], read["start"][:, action], read["end"][:, action], request
            )
            sequences.append(
                SequenceFeature(f"history_{action}", rows, WIDTH, pooling="mean", shared_with="item_0", padding_idx=0)
            )
        self.data = DataGenerator(x, read["label"].astype(np.float32))
        next(iter(self._loader(1.0, seed)))
        self.first_batch = {"seconds": time.perf_counter() - began}
        torch.manual_seed(seed)
        tasks = read["label"].shape[1]
        model = MMOE(
            [*sparse, *sequences],
            ["classification"] * tasks,
            EXPERTS,
            {"dims": list(EXPERT_WIDTHS)},
            [{"dims": [TOWER]}] * tasks,
        )
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.trainer = MTLTrainer(model, ["classification"] * tasks)

    def _loader(self, share, seed):
        torch.manual_seed(seed)
        return self.data.generate_dataloader(split_ratio=[share, 0], batch_size=self.batch)[0]

    def pass_over(self, what, samples, seed):
        """Train on samples drawn by `seed`: by its own loader, or (`collated`) on its batches, made beforehand."""
        loader = self._loader(min(1.0, samples / self.data.length), seed)
        batches = list(loader) if what == "collated" else loader
        began, busy = time.perf_counter(), time.process_time()
        losses = self.trainer.train_one_epoch(batches)
        return {
            "samples": len(loader.dataset),
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - busy,
            "loss": float(sum(losses)),
        }
