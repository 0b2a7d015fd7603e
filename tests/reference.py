"""The two neural rankers written out slowly, a token, a sample and a task at a time, from the design page's formulas.

Shares no code with the fast path: it reads the network's parameters by name and the requests' raw spans, and knows of no
batch, bucket, padding or folding. Differentiable, so that gradients can be compared too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from models.requests import Requests

Parameters = Mapping[str, Tensor]


def norm(x: Tensor) -> Tensor:
    """LayerNorm of one vector, without affine."""
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5)


def affine(p: Parameters, name: str, x: Tensor) -> Tensor:
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def gamma_beta(p: Parameters, task: int, action: int, layer: int, place: int, width: int) -> tuple[Tensor, Tensor]:
    """γ, β of one place: z = relu(linear([e_task ; e_action])), γ = 1 + Wγ·z, β = Wβ·z."""
    root = "bottom.interest.hypernetwork"
    pair = torch.cat([p[f"{root}.task.weight"][task], p[f"{root}.action.weight"][action]])
    out = affine(p, f"{root}.out", torch.relu(affine(p, f"{root}.hidden", pair)))
    begin = (layer * 2 + place) * 2 * width
    return 1 + out[begin : begin + width], out[begin + width : begin + 2 * width]


def transformer(p: Parameters, tokens: list[Tensor], task: int, action: int, layers: int, heads: int) -> list[Tensor]:
    """H' of every token of one history, for one task."""
    width = len(tokens[0])
    size = width // heads
    h = tokens
    for layer in range(layers):
        root = f"bottom.interest.layers.{layer}"
        qkv = [affine(p, f"{root}.qkv", x) for x in h]
        attended = []
        for mine, x in zip(qkv, h, strict=True):
            mixed = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                query = mine[:width][part]
                score = torch.stack([query @ other[width : 2 * width][part] / math.sqrt(size) for other in qkv])
                weight = torch.exp(score - score.max()) / torch.exp(score - score.max()).sum()
                mixed.append(sum((w * other[2 * width :][part] for w, other in zip(weight, qkv, strict=True)), torch.zeros(())))
            attended.append(x + affine(p, f"{root}.out", torch.cat(mixed)))
        gamma, beta = gamma_beta(p, task, action, layer, 0, width)
        c = [gamma * norm(x) + beta for x in attended]
        gamma, beta = gamma_beta(p, task, action, layer, 1, width)
        h = [gamma * norm(x + affine(p, f"{root}.down", torch.relu(affine(p, f"{root}.up", x)))) + beta for x in c]
    return h


def target_attention(p: Parameters, candidate: Tensor, h: list[Tensor]) -> Tensor:
    query = affine(p, "bottom.interest.query", candidate)
    score = torch.stack([query @ x / math.sqrt(len(x)) for x in h])
    weight = torch.exp(score - score.max()) / torch.exp(score - score.max()).sum()
    return sum((w * x for w, x in zip(weight, h, strict=True)), torch.zeros(()))


def refined(p: Parameters, x_FD: Tensor, task: int) -> Tensor:
    """w = 2·sigmoid(W2·relu(W1·mean over D)), a weight a field; the rescaled fields, flat."""
    root = "bottom.refinement"
    hidden = torch.relu(x_FD.mean(1) @ p[f"{root}.squeeze"][task] + p[f"{root}.squeeze_bias"][task, 0])
    weight = 2 / (1 + torch.exp(-(hidden @ p[f"{root}.excite"][task] + p[f"{root}.excite_bias"][task, 0])))
    return (x_FD * weight[:, None]).flatten()


def mmoe(p: Parameters, x: Tensor, task: int, experts: int) -> Tensor:
    """Gate of `task` over the experts of `x`, then its tower."""
    first = torch.relu(affine(p, "head.first", x)).view(experts, -1)
    outs = [torch.relu(first[e] @ p["head.second"][e] + p["head.second_bias"][e, 0]) for e in range(experts)]
    gate = torch.exp(x @ p["head.gate"][task])
    mixed = sum((g / gate.sum() * out for g, out in zip(gate, outs, strict=True)), torch.zeros(()))
    tower = torch.relu(mixed @ p["head.tower"][task] + p["head.tower_bias"][task, 0])
    return (tower @ p["head.last"][task] + p["head.last_bias"][task, 0]).squeeze()


def _history(p: Parameters, requests: Requests, request: int, action: int, extras: bool) -> list[Tensor]:
    """Embedded tokens of one request's span: item fields, and for DTRN its action, time gap and age."""
    begin, end = int(requests.start[request, action]), int(requests.end[request, action])
    tokens = []
    for place in range(begin, end):
        rows = requests.sequences.tokens[action][place]
        token = sum((p[f"bottom.fields.item.{f}.weight"][int(row)] for f, row in enumerate(rows)), torch.zeros(()))
        if extras:
            seconds = (int(requests.time[request]) - int(requests.sequences.times[action][place])) / 1000
            bucket = 0 if seconds < 1 else min(31, math.floor(math.log2(seconds)) + 1)
            token = token + p["bottom.gap.weight"][bucket] + p["bottom.age.weight"][end - 1 - place]
            token = token + p["bottom.action.weight"][action]
        tokens.append(token)
    return tokens


def logits(p: Parameters, requests: Requests, *, bottom: str, tasks: int, layers: int, heads: int, experts: int) -> Tensor:
    """(B, T) logits of encoded requests."""
    rows = []
    for request, (first, last) in enumerate(itertools.pairwise(requests.offsets)):
        user = [p[f"bottom.fields.user.{f}.weight"][int(r)] for f, r in enumerate(requests.user[request])]
        actions = range(requests.start.shape[1])
        tokens = [_history(p, requests, request, action, bottom == "dtrn") for action in actions]
        encoded = [
            [transformer(p, tokens[a], task, a, layers, heads) if tokens[a] and bottom == "dtrn" else [] for a in actions]
            for task in range(tasks)
        ]
        for sample in range(first, last):
            item = [p[f"bottom.fields.item.{f}.weight"][int(r)] for f, r in enumerate(requests.item[sample])]
            context = [p[f"bottom.fields.context.{f}.weight"][int(r)] for f, r in enumerate(requests.context[sample])]
            row = []
            for task in range(tasks):
                interests = []
                for action in actions:
                    if not tokens[action]:
                        interests.append(torch.zeros_like(item[0]))
                    elif bottom == "pooled":
                        interests.append(torch.stack(tokens[action]).mean(0))
                    else:
                        candidate = torch.stack(item).sum(0)
                        interests.append(target_attention(p, candidate, encoded[task][action]))
                x_FD = torch.stack([*user, *item, *context, *interests])
                x = refined(p, x_FD, task) if bottom == "dtrn" else x_FD.flatten()
                row.append(mmoe(p, x, task, experts))
            rows.append(torch.stack(row))
    return torch.stack(rows)
