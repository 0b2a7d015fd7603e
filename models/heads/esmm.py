"""ESMM: Ma et al., SIGIR 2018, 'Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion
Rate'.

A network per task over shared embeddings. A task that is conditional on another (the contract's `given`) is not fitted to the
samples where that other happened, which is a biased choice, but through the product with it to all samples:

    P(click and buy | x) = P(click | x) · P(buy | click, x)        its label: both happened;  logits stay those of the factors

A chain of conditional tasks goes on so. A task without a condition has the plain loss; where no task has one, all have.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import Recipe
from models.embeddings import Shape
from models.parts import Head
from models.towers import Grouped, Towers


class ESMM(Head):
    def __init__(self, recipe: Recipe, shape: Shape, inputs: int) -> None:
        super().__init__(recipe, shape, inputs)
        wide, narrow = recipe.expert_widths
        self.given = shape.given or (-1,) * shape.tasks
        self.first = Grouped(shape.tasks, inputs, recipe.experts * wide)
        self.second = Grouped(shape.tasks, recipe.experts * wide, narrow)
        self.towers = Towers(recipe, shape.tasks, narrow)

    def forward(self, x_SBI: Tensor) -> Tensor:
        """x: (T, B, inputs), or (1, B, inputs) where the tasks share one bottom; logits (B, T), of the factors."""
        logits: Tensor = self.towers(torch.relu(self.second(torch.relu(self.first(x_SBI)))))
        return logits

    def loss(self, logits_BT: Tensor, label_BT: Tensor, known_BT: Tensor) -> Tensor:
        """Per task (T,) the mean cross-entropy of the whole chain that ends in it, over the samples where its label is known.

        Once a task of the chain is known not to have happened the chain has not, whatever is masked behind it.
        """
        logits = logits_BT.float()
        done: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        while len(done) < len(self.given):
            for task, given in enumerate(self.given):
                if task not in done and (given < 0 or given in done):
                    yes, no, label = F.logsigmoid(logits[:, task]), F.logsigmoid(-logits[:, task]), label_BT[:, task]
                    known = known_BT[:, task]
                    if given >= 0:
                        yes_before, no_before, label_before, known_before = done[given]
                        no = torch.logaddexp(no_before, yes_before + no)  # 1 - ab = (1 - a) + a(1 - b), also where ab is near 1
                        yes = yes_before + yes
                        known = known_before & (known | (label_before == 0))
                        label = label_before * label
                    done[task] = yes, no, label, known
        per_task = []
        for task in range(len(self.given)):
            yes, no, label, known = done[task]
            each = -(label * yes + (1 - label) * no)
            per_task.append((each * known).sum() / known.sum().clamp(min=1))
        return torch.stack(per_task)


HEAD = ESMM
