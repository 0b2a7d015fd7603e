"""DTRN the plain way, as a first implementation in plain torch has it: what the fast path is measured against.

Every sample brings its own copy of every history, padded to the longest allowed; each (task, action) pair runs the whole
Transformer over it. It reads the parameters of a `dtrn+mmoe` network, so both are the same function: the tests compare
their logits and gradients. Nothing is made slow on purpose; it is only that nothing is shared, cut short or folded.
Letters: B samples · A actions · L longest history · D width · N attention heads · F fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import GAPS
from models.network import Network
from models.requests import Requests


@dataclass
class Padded:
    """A batch: user (B, Fu), item (B, Fi), context (B, Fc), token (B, A, L, Fi) rows; gap, age, present (B, A, L)."""

    user: Tensor
    item: Tensor
    context: Tensor
    token: Tensor
    gap: Tensor
    age: Tensor
    present: Tensor
    label: Tensor
    known: Tensor


def collate(requests: Requests, length: int) -> Padded:
    """The samples of encoded requests, each with its histories; the newest event of a history stands first."""
    request = requests.request
    size, step = (requests.end - requests.start)[request], np.arange(length)
    present = step < size[..., None]
    newest = requests.end[request][..., None] - 1
    token, gap = [], []
    for action, (tokens, times) in enumerate(zip(requests.sequences.tokens, requests.sequences.times, strict=True)):
        place = np.where(present[:, action], newest[:, action] - step, 0)
        token.append(tokens[place] if len(tokens) else np.zeros((*place.shape, requests.item.shape[1]), np.int32))
        seconds = (requests.time[request][:, None] - (times[place] if len(times) else 0)) / 1000.0
        gap.append(np.where(seconds < 1, 0, 1 + np.floor(np.log2(np.maximum(seconds, 1)))).clip(0, GAPS - 1))
    return Padded(
        _rows(requests.user[request]),
        _rows(requests.item.clip(0)),
        _rows(requests.context),
        _rows(np.stack(token, axis=1).clip(0)),
        _rows(np.stack(gap, axis=1)),
        _rows(np.broadcast_to(step, present.shape)),
        torch.from_numpy(present),
        torch.from_numpy(requests.label.clip(0).astype(np.float32)),
        torch.from_numpy(requests.label >= 0),
    )


def _rows(rows: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64))


class PlainDTRN(nn.Module):
    """The function of a `dtrn+mmoe` network, on a `Padded` batch, over that network's own parameters."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Padded) -> Tensor:
        """Logits (B, T)."""
        bottom, tasks = self.network.bottom, range(self.network.tasks)
        fields = bottom.fields
        columns = [
            *(table(batch.user[:, f]) for f, table in enumerate(fields.user)),
            *(table(batch.item[:, f]) for f, table in enumerate(fields.item)),
            *(table(batch.context[:, f]) for f, table in enumerate(fields.context)),
        ]
        candidate = sum(table(batch.item[:, f]) for f, table in enumerate(fields.item))
        gammas, betas = bottom.interest.hypernetwork()
        logits = []
        for task in tasks:
            interests = []
            for action in range(batch.token.shape[1]):
                h = sum(table(batch.token[:, action, :, f]) for f, table in enumerate(fields.item))
                h = h + bottom.moment.gap(batch.gap[:, action]) + bottom.moment.age(batch.age[:, action])
                h = h + bottom.moment.action.weight[action]
                interests.append(
                    self._interest(h, batch.present[:, action], candidate, gammas[task, action], betas[task, action])
                )
            x = self._refined(torch.stack([*columns, *interests], dim=1), task)
            logits.append(self._head(x.flatten(1), task))
        return torch.stack(logits, dim=1)

    def loss(self, batch: Padded) -> Tensor:
        """The network's own, every task of weight 1."""
        per_task: Tensor = self.network.head.loss(self(batch), batch.label, batch.known)
        return per_task.sum()

    def _interest(self, h: Tensor, present: Tensor, candidate: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """(B, D) of tokens (B, L, D); γ, β (layers, 2, D)."""
        transformer = self.network.bottom.interest.transformer
        mask = torch.where(present, 0.0, -math.inf).to(h.dtype)
        mask = torch.where(present.any(1, keepdim=True), mask, 0.0)  # an empty history is dropped below
        for layer, g, b in zip(transformer.layers, gamma, beta, strict=True):
            batch, length, width = h.shape
            q, k, v = layer.qkv(h).view(batch, length, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask[:, None, None]
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
            h = g[0] * F.layer_norm(h + layer.out(mixed), (width,)) + b[0]
            h = g[1] * F.layer_norm(h + layer.down(torch.relu(layer.up(h))), (width,)) + b[1]
        scores = (h @ transformer.query(candidate)[..., None]).squeeze(-1) / math.sqrt(h.shape[-1]) + mask
        out = (scores.softmax(-1)[:, None] @ h).squeeze(1)
        return torch.where(present.any(1, keepdim=True), out, 0.0)

    def _refined(self, x_BFD: Tensor, task: int) -> Tensor:
        trm = self.network.bottom.refinement
        hidden = torch.relu(x_BFD.mean(-1) @ trm.squeeze[task] + trm.squeeze_bias[task])
        return x_BFD * (2 * torch.sigmoid(hidden @ trm.excite[task] + trm.excite_bias[task]))[..., None]

    def _head(self, x: Tensor, task: int) -> Tensor:
        head = self.network.head
        hidden = torch.relu(head.first(x)).view(len(x), head.gate.shape[-1], -1)
        experts = [
            torch.relu(hidden[:, e] @ weight + bias)
            for e, (weight, bias) in enumerate(zip(head.second.weight, head.second.bias, strict=True))
        ]
        mixed = ((x @ head.gate[task]).softmax(-1)[..., None] * torch.stack(experts, dim=1)).sum(1)
        towers = head.towers
        hidden = torch.relu(mixed @ towers.hidden.weight[task] + towers.hidden.bias[task])
        return (hidden @ towers.last.weight[task] + towers.last.bias[task]).squeeze(-1)
