"""The neural rankers written out slowly, a token, a sample and a task at a time, from the papers' and the design's formulas.

Shares no code with the fast path: it reads the network's parameters by name and the requests' raw spans, and knows of no
batch, bucket, padding or folding. Differentiable, so that gradients can be compared too. Here are the bottoms; the heads are
in `tests.reference_heads`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from models.config import Recipe
from models.requests import Requests
from tests.reference_heads import HEADS, Parameters, affine, gate_unit, softmax

Vector = Tensor
GammaBeta = Callable[[int, int], tuple[Tensor, Tensor]]
"""γ, β of one layer and place, each (D,)."""


def norm(x: Vector) -> Vector:
    """LayerNorm of one vector, without affine."""
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5)


def weighted(weights: Tensor, vectors: list[Vector]) -> Vector:
    return sum((w * x for w, x in zip(weights, vectors, strict=True)), torch.zeros(()))


def transformer(p: Parameters, root: str, tokens: list[Vector], recipe: Recipe, gamma_beta: GammaBeta) -> list[Vector]:
    """H' of every token of one history."""
    width = len(tokens[0])
    size = width // recipe.attention_heads
    h = tokens
    for layer in range(recipe.layers):
        at = f"{root}.layers.{layer}"
        qkv = [affine(p, f"{at}.qkv", x) for x in h]
        attended = []
        for mine, x in zip(qkv, h, strict=True):
            mixed = []
            for head in range(recipe.attention_heads):
                part = slice(head * size, (head + 1) * size)
                score = torch.stack([mine[:width][part] @ other[width : 2 * width][part] / math.sqrt(size) for other in qkv])
                mixed.append(weighted(softmax(score), [other[2 * width :][part] for other in qkv]))
            attended.append(x + affine(p, f"{at}.out", torch.cat(mixed)))
        gamma, beta = gamma_beta(layer, 0)
        c = [gamma * norm(x) + beta for x in attended]
        gamma, beta = gamma_beta(layer, 1)
        h = [gamma * norm(x + affine(p, f"{at}.down", torch.relu(affine(p, f"{at}.up", x)))) + beta for x in c]
    return h


def target_attention(p: Parameters, root: str, candidate: Vector, h: list[Vector]) -> Vector:
    query = affine(p, f"{root}.query", candidate)
    return weighted(softmax(torch.stack([query @ x / math.sqrt(len(x)) for x in h])), h)


def refined(p: Parameters, root: str, x_FD: Tensor, task: int) -> Vector:
    """w = 2·sigmoid(W2·relu(W1·mean over D)), a weight a field; the rescaled fields, flat."""
    hidden = torch.relu(x_FD.mean(1) @ p[f"{root}.squeeze"][task] + p[f"{root}.squeeze_bias"][task, 0])
    weight = 2 / (1 + torch.exp(-(hidden @ p[f"{root}.excite"][task] + p[f"{root}.excite_bias"][task, 0])))
    return (x_FD * weight[:, None]).flatten()


class Pooled:
    """Mean of the tokens; the fields and means, flat, for every task alike."""

    own_streams = False
    extras = False

    def __init__(self, p: Parameters, root: str, recipe: Recipe) -> None:
        self.p, self.root, self.recipe = p, root, recipe

    def interests(self, histories: list[list[Vector]], candidate: Vector, task: int) -> list[Vector]:
        return [torch.stack(tokens).mean(0) if tokens else torch.zeros_like(candidate) for tokens in histories]

    def stream(self, x_FD: Tensor, task: int) -> Vector:
        return x_FD.flatten()


class DTRN(Pooled):
    """One Transformer whose γ, β a hypernetwork makes of task and action, SENet-like refinement per task; and its variants."""

    extras = True

    @property
    def own_streams(self) -> bool:  # type: ignore[override]
        return self.recipe.interest in ("task-action", "task", "separate") or self.recipe.refinement == "task"

    def interests(self, histories: list[list[Vector]], candidate: Vector, task: int) -> list[Vector]:
        encoders = {"dmt": list(range(self.recipe.copies)), "separate": [task]}.get(self.recipe.interest, [None])
        return [
            self.interest(tokens, candidate, task, action, encoder) if tokens else torch.zeros_like(candidate)
            for encoder in encoders
            for action, tokens in enumerate(histories)
        ]

    def interest(self, tokens: list[Vector], candidate: Vector, task: int, action: int, encoder: int | None) -> Vector:
        """`encoder`: number of the Transformer among those of the action; None where all share one."""
        p, width, root = self.p, len(candidate), f"{self.root}.interest"
        affine_root = f"{root}.hypernetwork"
        if encoder is not None:
            root = f"{root}.actions.{action}.{encoder}"
            affine_root = f"{root}.affine"

        def hyper(layer: int, place: int) -> tuple[Tensor, Tensor]:
            """z = relu(linear([e_task ; e_action])), γ = 1 + Wγ·z, β = Wβ·z, without what it is not conditioned on."""
            known = [p[f"{affine_root}.task.weight"][task]] if "task" in self.recipe.interest else []
            known += [p[f"{affine_root}.action.weight"][action]] if "action" in self.recipe.interest else []
            out = affine(p, f"{affine_root}.out", torch.relu(affine(p, f"{affine_root}.hidden", torch.cat(known))))
            begin = (layer * 2 + place) * 2 * width
            return 1 + out[begin : begin + width], out[begin + width : begin + 2 * width]

        def learned(layer: int, place: int) -> tuple[Tensor, Tensor]:
            return p[f"{affine_root}.gamma"][0, 0, layer, place], p[f"{affine_root}.beta"][0, 0, layer, place]

        conditional = self.recipe.interest in ("task-action", "task", "action")
        h = transformer(p, f"{root}.transformer", tokens, self.recipe, hyper if conditional else learned)
        return target_attention(p, f"{root}.transformer", candidate, h)

    def stream(self, x_FD: Tensor, task: int) -> Vector:
        if self.recipe.refinement == "none":
            return x_FD.flatten()
        return refined(self.p, f"{self.root}.refinement", x_FD, task if self.recipe.refinement == "task" else 0)


class DMT(DTRN):
    """A Transformer with a LayerNorm of its own for every action, then target attention."""

    def __init__(self, p: Parameters, root: str, recipe: Recipe) -> None:
        super().__init__(p, root, replace(recipe, interest="dmt", refinement="none"))


def history(p: Parameters, root: str, requests: Requests, request: int, action: int, extras: bool) -> list[Vector]:
    """Embedded tokens of one request's span: item fields, and where a Transformer reads them action, time gap and age."""
    begin, end = int(requests.start[request, action]), int(requests.end[request, action])
    tokens = []
    for place in range(begin, end):
        rows = requests.sequences.tokens[action][place]
        token = sum((p[f"{root}.fields.item.{f}.weight"][max(int(row), 0)] for f, row in enumerate(rows)), torch.zeros(()))
        if extras:
            bucket = gap_bucket(requests, request, action, place)
            token = token + p[f"{root}.moment.gap.weight"][bucket] + p[f"{root}.moment.age.weight"][end - 1 - place]
            token = token + p[f"{root}.moment.action.weight"][action]
        tokens.append(token)
    return tokens


def matches(p: Parameters, root: str, requests: Requests, request: int, sample: int, action: int, recipe: Recipe) -> Vector:
    """A row for how many and one for how lately: of all events, of those with the candidate's item, or a feature of it, and of
    those with a feature of it but nothing before that."""
    own = [int(row) for row in requests.item[sample]]
    span = range(int(requests.start[request, action]), int(requests.end[request, action]))
    out = torch.zeros(recipe.width)
    if not recipe.matches or not span:
        return out
    rows = requests.sequences.tokens[action]
    shared = [[int(rows[n][f]) == row != 0 for f, row in enumerate(own)] for n in range(len(rows))]
    kinds = [list(span)] + [[n for n in span if shared[n][f]] for f in range(len(own))]
    kinds += [[n for n in span if shared[n][f] and not any(shared[n][:f])] for f in range(1, len(own))]
    for kind, places in enumerate(kinds):
        begin = (action * len(kinds) + kind) * 40
        out = out + p[f"{root}.matches.table"][begin + (min(7, math.floor(math.log2(len(places))) + 1) if places else 0)]
        gap = gap_bucket(requests, request, action, places[-1]) if places else 0
        out = out + p[f"{root}.matches.table"][begin + 8 + gap]
    return out


def told(p: Parameters, root: str, requests: Requests, side: int, place: int, recipe: Recipe) -> Vector:
    """The sum of the rows that the statistics of a user (side 0) or of an item (1) stand for."""
    out = torch.zeros(recipe.width)
    for row in requests.told[side][place] if recipe.statistics and requests.told else []:
        out = out + p[f"{root}.fields.told.{side}"][int(row)]
    return out


def gap_bucket(requests: Requests, request: int, action: int, place: int) -> int:
    seconds = (int(requests.time[request]) - int(requests.sequences.times[action][place])) / 1000
    return 0 if seconds < 1 else min(31, math.floor(math.log2(seconds)) + 1)


Streams = Callable[[Parameters, str, Requests, Recipe, int], list[list[Vector]]]
"""By sample the streams, as many as asked for, of the bottom whose parameters begin so: one a task, or the same for all."""


def looked_up(kind: type[Pooled]) -> Streams:
    """Of a bottom with one set of tables."""

    def streams(p: Parameters, root: str, requests: Requests, recipe: Recipe, count: int) -> list[list[Vector]]:
        bottom = kind(p, root, recipe)
        actions = range(requests.start.shape[1])
        out = []
        for request, (first, last) in enumerate(itertools.pairwise(requests.offsets)):
            user = [p[f"{root}.fields.user.{f}.weight"][int(r)] for f, r in enumerate(requests.user[request])]
            user[0] = user[0] + told(p, root, requests, 0, request, recipe)
            tokens = [history(p, root, requests, request, action, bottom.extras) for action in actions]
            for sample in range(first, last):
                item = [p[f"{root}.fields.item.{f}.weight"][max(int(r), 0)] for f, r in enumerate(requests.item[sample])]
                item[0] = item[0] + told(p, root, requests, 1, sample, recipe)
                context = [p[f"{root}.fields.context.{f}.weight"][int(r)] for f, r in enumerate(requests.context[sample])]
                candidate = torch.stack(item).sum(0)
                extra = [matches(p, root, requests, request, sample, action, recipe) for action in actions]
                own = []
                for task in range(count if bottom.own_streams else 1):
                    interests = [x + extra[n % len(extra)] for n, x in enumerate(bottom.interests(tokens, candidate, task))]
                    own.append(bottom.stream(torch.stack([*user, *item, *context, *interests]), task))
                out.append(own if bottom.own_streams else own * count)
        return out

    return streams


def stem(p: Parameters, root: str, requests: Requests, recipe: Recipe, count: int) -> list[list[Vector]]:
    """Every stream from tables of its own."""
    base = replace(recipe, bottom=recipe.base)
    alone = [BOTTOMS[recipe.base](p, f"{root}.{stream}", requests, base, 1) for stream in range(count)]
    return [[own[sample][0] for own in alone] for sample in range(len(requests))]


def pepnet(p: Parameters, root: str, requests: Requests, recipe: Recipe, count: int) -> list[list[Vector]]:
    """A gate on every number of every stream, made of the context's embeddings in it and of the whole of it."""
    base = BOTTOMS[recipe.base](p, f"{root}.base", requests, replace(recipe, bottom=recipe.base), count)
    begin = (requests.user.shape[1] + requests.item.shape[1]) * recipe.width
    end = begin + requests.context.shape[1] * recipe.width
    return [[x * gate_unit(p, f"{root}.gate", 0, x[begin:end], x) for x in own] for own in base]


BOTTOMS: dict[str, Streams] = {
    "dmt": looked_up(DMT),
    "dtrn": looked_up(DTRN),
    "pepnet": pepnet,
    "pooled": looked_up(Pooled),
    "stem": stem,
}


def ids(p: Parameters, requests: Requests, recipe: Recipe, count: int) -> list[list[Vector]]:
    """By sample and stream the embeddings of the user's and the item's id, as they are in the tables."""
    out = []
    for request, (first, last) in enumerate(itertools.pairwise(requests.offsets)):
        for sample in range(first, last):
            own = []
            for task in range(count):
                root = {"stem": f"bottom.{task}", "pepnet": "bottom.base"}.get(recipe.bottom, "bottom")
                user = p[f"{root}.fields.user.0.weight"][int(requests.user[request, 0])]
                own.append(torch.cat([user, p[f"{root}.fields.item.0.weight"][max(int(requests.item[sample, 0]), 0)]]))
            out.append(own)
    return out


def logits(p: Mapping[str, Tensor], requests: Requests, recipe: Recipe, tasks: int) -> Tensor:
    """(B, T) logits of encoded requests. PLE and STEM are given T + 1 streams, of which the last is the shared one."""
    if recipe.head == "single-task":
        alone = [BOTTOMS[recipe.bottom](p, f"bottom.{task}", requests, recipe, 1) for task in range(tasks)]
        given = [[alone[task][sample][0] for task in range(tasks)] for sample in range(len(requests))]
    else:
        given = BOTTOMS[recipe.bottom](p, "bottom", requests, recipe, tasks + (recipe.head in ("ple", "stem")))
    if recipe.head == "ppnet":
        personal = ids(p, requests, recipe, tasks)
        given = [[torch.cat(both) for both in zip(*sample, strict=True)] for sample in zip(given, personal, strict=True)]
    return torch.stack([torch.stack(HEADS[recipe.head](p, x, recipe, tasks)) for x in given])
