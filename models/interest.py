"""The interests of histories: TIM, DTRN's task-specific interest module, what it is made of, and what it is compared with.

Liu et al., CIKM 2023 (arXiv 2308.05996) state that a hypernetwork takes the task and the behaviour-type embedding and
gives the Transformer's LayerNorm γ and β, all else being shared. The rest is our reconstruction, for task t and action a:

    z[t,a]  = MLP([e_task(t) ; e_action(a)]),  γ = 1 + Wγ·z,  β = Wβ·z   per layer, after attention and after the FFN
    v[t,a]  = the Transformer of `models.transformer` with this γ and β;  an empty history gives exactly 0

A recipe's `interest` says who shares what; all but the first two are controls of ours (docs/models.md):

    task-action   TIM                                                           streams: one a task
    dmt           a Transformer an action, shared by the tasks (`bottoms/dmt`)            one
    task, action  TIM whose hypernetwork is given the task alone, the action alone        one a task; one
    shared        one Transformer for all, its γ, β learned as in any LayerNorm           one
    separate      a Transformer for every (task, action), nothing shared                  one a task
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.batches import Batch, Bucket
from models.config import Recipe
from models.transformer import Transformer


class Hypernetwork(nn.Module):
    """γ, β of every (task, action, layer, place); starts at γ = 1, β = 0 up to a small conditional part.

    Of a condition that is not in `by` it is given nothing, and its axis is 1.
    """

    def __init__(self, recipe: Recipe, tasks: int, actions: int, by: tuple[str, ...] = ("task", "action")) -> None:
        super().__init__()
        self.shape = (tasks if "task" in by else 1, actions if "action" in by else 1, recipe.layers, 2, 2, recipe.width)
        self.task = nn.Embedding(tasks, recipe.hyper) if "task" in by else None
        self.action = nn.Embedding(actions, recipe.hyper) if "action" in by else None
        self.hidden = nn.Linear(len(by) * recipe.hyper, recipe.hyper)
        self.out = nn.Linear(recipe.hyper, math.prod(self.shape[2:]))
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self) -> tuple[Tensor, Tensor]:
        """(γ, β), each (T or 1, A or 1, layers, 2, D); place 0 is after attention, 1 after the FFN."""
        tasks, actions = self.shape[:2]
        known = []
        if self.task is not None:
            known.append(self.task.weight[:, None].expand(-1, actions, -1))
        if self.action is not None:
            known.append(self.action.weight[None].expand(tasks, -1, -1))
        out = self.out(torch.relu(self.hidden(torch.cat(known, dim=-1)))).view(self.shape)
        return 1 + out[..., 0, :], out[..., 1, :]


class Affine(nn.Module):
    """γ, β learned as they are in any LayerNorm: what stands where there is no hypernetwork."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 1, recipe.layers, 2, recipe.width))
        self.beta = nn.Parameter(torch.zeros(1, 1, recipe.layers, 2, recipe.width))

    def forward(self) -> tuple[Tensor, Tensor]:
        """(γ, β), each (1, 1, layers, 2, D)."""
        return self.gamma, self.beta


class Interest(nn.Module):
    """One Transformer for all tasks and actions, whose γ, β are all that may differ: it reads every action's tokens at once."""

    def __init__(self, recipe: Recipe, tasks: int, actions: int, by: tuple[str, ...]) -> None:
        super().__init__()
        self.streams = tasks if "task" in by else 1
        self.hypernetwork = Hypernetwork(recipe, tasks, actions, by) if by else Affine(recipe)
        self.transformer = Transformer(recipe)

    def forward(self, h_QD: Tensor, batch: Batch, candidate_BD: Tensor) -> list[Tensor]:
        """By bucket (streams, N·R, D): the interests of its N histories, for the R candidates of each.

        `h_QD`: embedded tokens · `candidate_BD`: embedded samples.
        """
        if not batch.buckets:
            return []
        out: list[Tensor] = self.transformer(h_QD, batch.action_QA, batch.buckets, candidate_BD, *self.hypernetwork())
        return out


class Encoder(nn.Module):
    """A Transformer with LayerNorms of its own."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.transformer = Transformer(recipe)
        self.affine = Affine(recipe)

    def forward(self, h_QD: Tensor, action_QA: Tensor, buckets: list[Bucket], candidate_BD: Tensor) -> list[Tensor]:
        """By bucket (1, N·R, D) interests of its N histories, for the R candidates of each."""
        out: list[Tensor] = self.transformer(h_QD, action_QA, buckets, candidate_BD, *self.affine())
        return out


class Encoders(nn.Module):
    """An `Encoder` for every action and stream."""

    def __init__(self, recipe: Recipe, streams: int, actions: int) -> None:
        super().__init__()
        self.streams = streams
        self.actions = nn.ModuleList(nn.ModuleList(Encoder(recipe) for _ in range(streams)) for _ in range(actions))

    def forward(self, h_QD: Tensor, batch: Batch, candidate_BD: Tensor) -> list[Tensor]:
        """As `Interest` gives them."""
        parts = [(place, action, part) for place, bucket in enumerate(batch.buckets) for action, part in bucket.by_action()]
        sizes = [part.present_NL.numel() for _, _, part in parts]
        tokens, actions = torch.split(h_QD, sizes), torch.split(batch.action_QA, sizes)
        outs: list[list[Tensor]] = [[] for _ in batch.buckets]
        for action in range(len(self.actions)):
            own = [number for number, (_, of, _) in enumerate(parts) if of == action]
            if not own:
                continue
            h, which = torch.cat([tokens[number] for number in own]), torch.cat([actions[number] for number in own])
            buckets = [parts[number][2] for number in own]
            streams = [encoder(h, which, buckets, candidate_BD) for encoder in self._of(action)]
            for number, of_stream in zip(own, zip(*streams, strict=True), strict=True):
                outs[parts[number][0]].append(torch.cat(of_stream))
        return [torch.cat(pieces, dim=1) for pieces in outs]

    def _of(self, action: int) -> nn.ModuleList:
        encoders = self.actions[action]
        assert isinstance(encoders, nn.ModuleList)
        return encoders


CONDITIONS = {"task-action": ("task", "action"), "task": ("task",), "action": ("action",), "shared": ()}


def interest(recipe: Recipe, tasks: int, actions: int) -> Interest | Encoders:
    """What the recipe's `interest` names."""
    if recipe.interest in CONDITIONS:
        return Interest(recipe, tasks, actions, CONDITIONS[recipe.interest])
    return Encoders(recipe, recipe.copies if recipe.interest == "dmt" else tasks, actions)
