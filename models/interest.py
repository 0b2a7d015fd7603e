"""TIM, DTRN's task-specific interest module: a hypernetwork-conditioned Transformer over each action's history.

Liu et al., CIKM 2023 (arXiv 2308.05996) state that the hypernetwork takes the task and the behaviour-type embedding and
gives the Transformer's LayerNorm γ and β, all else being shared. The rest is our reconstruction, for task t and action a:

    z[t,a]  = MLP([e_task(t) ; e_action(a)]),  γ = 1 + Wγ·z,  β = Wβ·z   per layer, after attention and after the FFN
    C       = γ₁·norm(H + MHA(H)) + β₁,  H' = γ₂·norm(C + FFN(C)) + β₂   (post-LayerNorm; norm is LayerNorm without affine)
    v[t,a]  = target attention (query = candidate, keys = values = H');  an empty history gives exactly 0

Two exact savings: with post-LayerNorm the first layer's self-attention is the same for all tasks, so it runs once; and the
last affine is never built per token, since q·(γ₂x+β₂) = (γ₂q)·x + a constant that drops out of the softmax, and
Σ att·(γ₂x+β₂) = γ₂·Σ att·x + β₂.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Bucket
from models.config import Recipe


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


class Layer(nn.Module):
    """One Transformer layer without affine parameters of its own."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.heads = recipe.attention_heads
        self.qkv = nn.Linear(recipe.width, 3 * recipe.width)
        self.out = nn.Linear(recipe.width, recipe.width)
        self.up = nn.Linear(recipe.width, recipe.ffn)
        self.down = nn.Linear(recipe.ffn, recipe.width)

    def attend(self, h_NLD: Tensor, present_NL: Tensor) -> Tensor:
        """norm(H + MHA(H)), (N, L, D)."""
        n, length, width = h_NLD.shape
        q, k, v = self.qkv(h_NLD).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(~present_NL[:, None, None], -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width)
        return F.layer_norm(h_NLD + self.out(mixed), (width,))

    def feed(self, c: Tensor) -> Tensor:
        """norm(C + FFN(C)), any leading shape."""
        return F.layer_norm(c + self.down(torch.relu(self.up(c))), c.shape[-1:])


class Interest(nn.Module):
    """TIM: (T, N·R, D) interests of each bucket, for the R candidates of each of its N histories."""

    def __init__(self, recipe: Recipe, tasks: int, actions: int) -> None:
        super().__init__()
        self.hypernetwork = Hypernetwork(recipe, tasks, actions)
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.query = nn.Linear(recipe.width, recipe.width)

    def forward(self, h_NLD: Tensor, bucket: Bucket, candidate_NRD: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        """`h_NLD`: embedded tokens of the bucket · `candidate_NRD`: embedded candidates · `affine`: the hypernetwork's γ, β."""
        gamma, beta = (x[:, bucket.action_N][:, :, :, :, None] for x in affine)  # (T, N, layers, 2, 1, D)
        tasks, (n, length, width) = gamma.shape[0], h_NLD.shape
        x = h_NLD.expand(1, -1, -1, -1)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if number:
                x = gamma[:, :, number - 1, 1] * x + beta[:, :, number - 1, 1]
            streams = x.shape[0]
            present = bucket.present_NL.expand(streams, -1, -1).reshape(streams * n, length)
            x = layer.attend(x.reshape(streams * n, length, width), present).view(streams, n, length, width)
            x = layer.feed(gamma[:, :, number, 0] * x + beta[:, :, number, 0])  # (T, N, L, D)
        gamma_last, beta_last = gamma[:, :, -1, 1], beta[:, :, -1, 1]
        query = gamma_last * self.query(candidate_NRD)  # (T, N, R, D)
        candidates = query.shape[2]
        x = x.reshape(tasks * n, length, width)
        scores = torch.bmm(query.reshape(tasks * n, candidates, width), x.transpose(1, 2)) / math.sqrt(width)
        scores = scores.view(tasks, n, candidates, length).masked_fill(~bucket.present_NL[:, None], -math.inf)
        mixed = torch.bmm(scores.softmax(-1).view(tasks * n, candidates, length), x).view(tasks, n, candidates, width)
        return (gamma_last * mixed + beta_last).reshape(tasks, n * candidates, width)
