"""TIM, DTRN's task-specific interest module: a hypernetwork-conditioned Transformer over each action's history.

Liu et al., CIKM 2023 (arXiv 2308.05996) state that the hypernetwork takes the task and the behaviour-type embedding and
gives the Transformer's LayerNorm γ and β, all else being shared. The rest is our reconstruction, for task t and action a:

    z[t,a]  = MLP([e_task(t) ; e_action(a)]),  γ = 1 + Wγ·z,  β = Wβ·z   per layer, after attention and after the FFN
    v[t,a]  = the Transformer of `models.transformer` with this γ and β;  an empty history gives exactly 0
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.batches import Batch
from models.config import Recipe
from models.transformer import Transformer


class Hypernetwork(nn.Module):
    """γ, β of every (task, action, layer, place); starts at γ = 1, β = 0 up to a small task-dependent part."""

    def __init__(self, recipe: Recipe, tasks: int, actions: int) -> None:
        super().__init__()
        self.shape = (tasks, actions, recipe.layers, 2, 2, recipe.width)
        self.task = nn.Embedding(tasks, recipe.hyper)
        self.action = nn.Embedding(actions, recipe.hyper)
        self.hidden = nn.Linear(2 * recipe.hyper, recipe.hyper)
        self.out = nn.Linear(recipe.hyper, math.prod(self.shape[2:]))
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self) -> tuple[Tensor, Tensor]:
        """(γ, β), each (T, A, layers, 2, D); place 0 is after attention, 1 after the FFN."""
        tasks, actions = self.shape[:2]
        pair = torch.cat(
            [
                self.task.weight[:, None].expand(-1, actions, -1),
                self.action.weight[None].expand(tasks, -1, -1),
            ],
            dim=-1,
        )
        out = self.out(torch.relu(self.hidden(pair))).view(self.shape)
        return 1 + out[..., 0, :], out[..., 1, :]


class Interest(nn.Module):
    """TIM: (T, ΣN·R, D) interests of each action's buckets, for the R candidates of each of their N histories."""

    def __init__(self, recipe: Recipe, tasks: int, actions: int) -> None:
        super().__init__()
        self.hypernetwork = Hypernetwork(recipe, tasks, actions)
        self.transformer = Transformer(recipe)

    def forward(self, h_QD: Tensor, batch: Batch, candidate_BD: Tensor) -> list[Tensor]:
        """`h_QD`: embedded tokens · `candidate_BD`: embedded samples."""
        gamma, beta = self.hypernetwork()
        return [
            self.transformer(h_QD[begin:end], buckets, candidate_BD, gamma[:, action], beta[:, action])
            for action, begin, end, buckets in batch.actions()
        ]
