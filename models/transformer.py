"""The Transformer over one history with the candidate as query: what DMT has per action, and TIM once for all.

    C  = γ₁·norm(H + MHA(H)) + β₁,  H' = γ₂·norm(C + FFN(C)) + β₂   per layer (post-LayerNorm; norm is without affine)
    v  = target attention (query = candidate, keys = values = H')

γ and β are given to it, and are all that may differ from one stream (task) to the next. Two exact savings: with
post-LayerNorm the first layer's self-attention is the same for all streams, so it runs once; and the last affine is never
built per token, since q·(γ₂x+β₂) = (γ₂q)·x + a constant that drops out of the softmax, and Σ att·(γ₂x+β₂) = γ₂·Σ att·x + β₂.
What is done to a token alone is done to all of an action's tokens at once; only attention goes bucket by bucket.
Letters: T streams · Q tokens of an action · N histories of a bucket · L length · R candidates · D width · K attention heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Bucket
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

    def attend(self, h_TQD: Tensor, buckets: list[Bucket]) -> Tensor:
        """norm(H + MHA(H)), (T, Q, D)."""
        streams, tokens, width = h_TQD.shape
        size = width // self.heads
        weight, bias = self.qkv.weight.view(-1, size, width), self.qkv.bias.view(-1, 1, size)
        h = h_TQD.reshape(1, -1, width).expand(3 * self.heads, -1, -1)
        qkv = torch.baddbmm(bias, h, weight.transpose(1, 2)).view(3, self.heads, streams, tokens, size)
        parts = torch.split(qkv, [bucket.present_NL.numel() for bucket in buckets], dim=3)
        mixed = []
        for bucket, part in zip(buckets, parts, strict=True):
            length = bucket.present_NL.shape[1]
            q, k, v = part.reshape(3, -1, length, size).unbind()
            scores = torch.baddbmm(_mask(bucket, self.heads * streams, q), q, k.transpose(1, 2), alpha=1 / math.sqrt(size))
            mixed.append(torch.bmm(scores.softmax(-1), v).view(self.heads, streams, -1, size))
        joined = torch.cat(mixed, dim=2).permute(1, 2, 0, 3).reshape(streams, tokens, width)
        return F.layer_norm(h_TQD + self.out(joined), (width,))

    def feed(self, c: Tensor) -> Tensor:
        """norm(C + FFN(C)), any leading shape."""
        return F.layer_norm(c + self.down(torch.relu(self.up(c))), c.shape[-1:])


class Transformer(nn.Module):
    """(T, ΣN·R, D) interests of an action's buckets, end to end: of N histories each, for the R candidates of every one."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.query = nn.Linear(recipe.width, recipe.width)

    def forward(self, h_QD: Tensor, buckets: list[Bucket], candidate_BD: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """`h_QD`: embedded tokens of the buckets, end to end · `candidate_BD`: embedded samples · γ, β: (T, layers, 2, D).

        Place 0 of γ, β is after attention, 1 after the FFN. A history has one token or more.
        """
        gamma, beta = gamma.unsqueeze(-2), beta.unsqueeze(-2)  # (T, layers, 2, 1, D)
        streams, width = len(gamma), h_QD.shape[-1]
        x = h_QD[None]
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if number:
                x = torch.addcmul(beta[:, number - 1, 1], gamma[:, number - 1, 1], x)
            x = layer.attend(x, buckets)
            x = layer.feed(torch.addcmul(beta[:, number, 0], gamma[:, number, 0], x))  # (T, Q, D)
        gamma_last, beta_last = gamma[:, -1, 1], beta[:, -1, 1]
        looks = torch.cat([bucket.candidate_NR.flatten() for bucket in buckets]).clamp_(0)
        query = gamma_last * F.embedding(looks, self.query(candidate_BD))  # (T, ΣN·R, D)
        keys = torch.split(x, [bucket.present_NL.numel() for bucket in buckets], dim=1)
        asks = torch.split(query, [bucket.candidate_NR.numel() for bucket in buckets], dim=1)
        mixed = []
        for bucket, key, ask in zip(buckets, keys, asks, strict=True):
            n, length = bucket.present_NL.shape
            key, ask = key.reshape(streams * n, length, width), ask.reshape(streams * n, -1, width)
            scores = torch.baddbmm(_mask(bucket, streams, ask), ask, key.transpose(1, 2), alpha=1 / math.sqrt(width))
            mixed.append(torch.bmm(scores.softmax(-1), key).view(streams, -1, width))
        return torch.addcmul(beta_last, gamma_last, torch.cat(mixed, 1))


def _mask(bucket: Bucket, copies: int, like: Tensor) -> Tensor:
    """(copies·N, 1, L) to be added to scores: 0 for a token, minus infinity where there is none."""
    mask = like.new_zeros(bucket.present_NL.shape).masked_fill_(~bucket.present_NL, -math.inf)
    return mask.expand(copies, -1, -1).reshape(-1, 1, mask.shape[-1])
