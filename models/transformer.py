"""The Transformer over one history with the candidate as query: what DMT has per action, and TIM once for all.

    C  = γ₁·norm(H + MHA(H)) + β₁,  H' = γ₂·norm(C + FFN(C)) + β₂   per layer (post-LayerNorm; norm is without affine)
    v  = target attention (query = candidate, keys = values = H')

γ and β are given to it, and are all that may differ from one stream (task) to the next. Two exact savings: with
post-LayerNorm the first layer's self-attention is the same for all streams, so it runs once; and the last affine is never
built per token, since q·(γ₂x+β₂) = (γ₂q)·x + a constant that drops out of the softmax, and Σ att·(γ₂x+β₂) = γ₂·Σ att·x + β₂.
Letters: T streams · N histories of a bucket · L length · R candidates · D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Recipe


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


class Transformer(nn.Module):
    """(T, N·R, D) interests of N histories, for the R candidates of each."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.query = nn.Linear(recipe.width, recipe.width)

    def forward(self, h_NLD: Tensor, present_NL: Tensor, candidate_NRD: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """`h_NLD`: embedded tokens · `candidate_NRD`: embedded candidates · γ, β: (T, N or 1, layers, 2, D).

        Place 0 of γ, β is after attention, 1 after the FFN. A history has one token or more.
        """
        gamma, beta = gamma.unsqueeze(-2), beta.unsqueeze(-2)  # (T, N, layers, 2, 1, D)
        tasks, (n, length, width) = gamma.shape[0], h_NLD.shape
        x = h_NLD.expand(1, -1, -1, -1)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if number:
                x = gamma[:, :, number - 1, 1] * x + beta[:, :, number - 1, 1]
            streams = x.shape[0]
            present = present_NL.expand(streams, -1, -1).reshape(streams * n, length)
            x = layer.attend(x.reshape(streams * n, length, width), present).view(streams, n, length, width)
            x = layer.feed(gamma[:, :, number, 0] * x + beta[:, :, number, 0])  # (T, N, L, D)
        gamma_last, beta_last = gamma[:, :, -1, 1], beta[:, :, -1, 1]
        query = gamma_last * self.query(candidate_NRD)  # (T, N, R, D)
        candidates = query.shape[2]
        x = x.reshape(tasks * n, length, width)
        scores = torch.bmm(query.reshape(tasks * n, candidates, width), x.transpose(1, 2)) / math.sqrt(width)
        scores = scores.view(tasks, n, candidates, length).masked_fill(~present_NL[:, None], -math.inf)
        mixed = torch.bmm(scores.softmax(-1).view(tasks * n, candidates, length), x).view(tasks, n, candidates, width)
        return (gamma_last * mixed + beta_last).reshape(tasks, n * candidates, width)
