"""The Transformer over one history with the candidate as query: what DMT has per action, and TIM once for all.

    C  = γ₁·norm(H + MHA(H)) + β₁,  H' = γ₂·norm(C + FFN(C)) + β₂   per layer (post-LayerNorm; norm is without affine)
    v  = target attention (query = candidate, keys = values = H')

γ and β are given to it, and are all that may differ from one stream (task) to the next. Two exact savings: with
post-LayerNorm the first layer's self-attention is the same for all streams, so it runs once; and the last affine is never
built per token, since q·(γ₂x+β₂) = (γ₂q)·x + a constant that drops out of the softmax, and Σ att·(γ₂x+β₂) = γ₂·Σ att·x + β₂.
What is done to a token alone is done to all tokens at once, of every action; only attention goes bucket by bucket.
Letters: T streams · A actions · Q tokens · N histories of a bucket · L length · R candidates · D width · K attention heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Bucket
from models.config import Recipe
from models.embeddings import of_action, taken


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
    """By bucket (T, N·R, D) interests of its N histories, for the R candidates of every one."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.query = nn.Linear(recipe.width, recipe.width)

    def forward(
        self, h_QD: Tensor, action_QA: Tensor, buckets: list[Bucket], candidate_BD: Tensor, gamma: Tensor, beta: Tensor
    ) -> list[Tensor]:
        """`h_QD`: embedded tokens of the buckets, end to end, `action_QA` their actions · `candidate_BD`: embedded samples.

        γ, β are (T, A, layers, 2, D), or with A = 1 the same for all actions; place 0 is after attention, 1 after the FFN.
        A history has one token or more.
        """
        width = h_QD.shape[-1]
        x = h_QD[None]
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            if number:
                x = _affine(x, gamma[:, :, number - 1, 1], beta[:, :, number - 1, 1], action_QA)
            x = layer.feed(_affine(layer.attend(x, buckets), gamma[:, :, number, 0], beta[:, :, number, 0], action_QA))
        streams = len(x)
        sizes = [bucket.present_NL.numel() for bucket in buckets]
        looks = [bucket.candidate_NR for bucket in buckets]
        query = taken(self.query(candidate_BD), torch.cat([look.flatten() for look in looks]).clamp_(0))
        keys, actions = torch.split(x, sizes, dim=1), torch.split(action_QA, sizes)
        asks = torch.split(query, [look.numel() for look in looks])
        outs = []
        for bucket, key, ask, action in zip(buckets, keys, asks, actions, strict=True):
            n, length = bucket.present_NL.shape
            own = action.view(n, length, -1)[:, 0]
            gamma_last, beta_last = (_by_action(y[:, :, -1, 1], own).unsqueeze(2) for y in (gamma, beta))  # (T, N or 1, 1, D)
            key, ask = key.reshape(streams * n, length, width), (gamma_last * ask.view(n, -1, width)).flatten(0, 1)
            scores = torch.baddbmm(_mask(bucket, streams, ask), ask, key.transpose(1, 2), alpha=1 / math.sqrt(width))
            mixed = torch.bmm(scores.softmax(-1), key).view(streams, n, -1, width)
            outs.append(torch.addcmul(beta_last, gamma_last, mixed).flatten(1, 2))
        return outs


def _by_action(values_TAD: Tensor, action_QA: Tensor) -> Tensor:
    """(T, Q, D) of each action; (T, 1, D) where all have the same."""
    return values_TAD if values_TAD.shape[1] == 1 else of_action(values_TAD, action_QA)


def _affine(x_TQD: Tensor, gamma_TAD: Tensor, beta_TAD: Tensor, action_QA: Tensor) -> Tensor:
    return torch.addcmul(_by_action(beta_TAD, action_QA), _by_action(gamma_TAD, action_QA), x_TQD)


def _mask(bucket: Bucket, copies: int, like: Tensor) -> Tensor:
    """(copies·N, 1, L) to be added to scores: 0 for a token, minus infinity where there is none."""
    mask = like.new_zeros(bucket.present_NL.shape).masked_fill_(~bucket.present_NL, -math.inf)
    return mask.expand(copies, -1, -1).reshape(-1, 1, mask.shape[-1])
