"""The heads written out for one sample, a task and an expert at a time. Each is given the streams of its tasks, the shared
one last where the head reads such a one, and gives the logits of the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from models.config import Recipe

Parameters = Mapping[str, Tensor]


def affine(p: Parameters, name: str, x: Tensor) -> Tensor:
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def group(p: Parameters, name: str, number: int, x: Tensor) -> Tensor:
    """Layer `number` of several that are kept in one parameter, weights as (in, out)."""
    return x @ p[f"{name}.weight"][number] + p[f"{name}.bias"][number, 0]


def softmax(scores: Tensor) -> Tensor:
    powers = torch.exp(scores - scores.max())
    return powers / powers.sum()


def mixed(gate: Tensor, outs: list[Tensor]) -> Tensor:
    """The experts' outputs, weighted by the softmax of the gate."""
    return sum((weight * out for weight, out in zip(softmax(gate), outs, strict=True)), torch.zeros(()))


def tower(p: Parameters, task: int, x: Tensor) -> Tensor:
    return group(p, "head.towers.last", task, torch.relu(group(p, "head.towers.hidden", task, x))).squeeze()


def gate_unit(p: Parameters, root: str, number: int, prior: Tensor, x: Tensor) -> Tensor:
    """PEPNet's gate number `number`: 2·sigmoid of two layers over the prior and x, which the gate does not train."""
    hidden = torch.relu(group(p, f"{root}.first", number, torch.cat([prior, x.detach()])))
    return 2 / (1 + torch.exp(-group(p, f"{root}.second", number, hidden)))


def mmoe(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """Gate of the task over the shared experts of its stream, then its tower."""
    wide, logits = recipe.expert_widths[0], []
    for task in range(tasks):
        outs = []
        for expert in range(recipe.experts):
            rows = slice(expert * wide, (expert + 1) * wide)
            first = torch.relu(p["head.first.weight"][rows] @ x[task] + p["head.first.bias"][rows])
            outs.append(torch.relu(group(p, "head.second", expert, first)))
        logits.append(tower(p, task, mixed(x[task] @ p["head.gate"][task], outs)))
    return logits


def slim(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """Gate of the task over groups of the first layer's units, the second layer column by column of its weight."""
    each, logits = -(-recipe.expert_widths[0] // recipe.experts), []
    for task in range(tasks):
        hidden, share = torch.relu(affine(p, "head.first", x[task])), softmax(x[task] @ p["head.gate"][task])
        out = p["head.second.bias"]
        for unit, value in enumerate(hidden):
            out = out + recipe.experts * share[unit // each] * value * p["head.second.weight"][:, unit]
        logits.append(tower(p, task, torch.relu(out)))
    return logits


def shared_bottom(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """One network of two layers for every task's stream, then its tower."""
    hidden = [torch.relu(affine(p, "head.second", torch.relu(affine(p, "head.first", x[task])))) for task in range(tasks)]
    return [tower(p, task, hidden[task]) for task in range(tasks)]


def single_task(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """A network of two layers and a tower of its own for every task."""
    return [tower(p, task, hidden) for task, hidden in enumerate(network_per_task(p, x, tasks))]


def ple(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """Two extraction layers over T + 1 streams; the gates of tasks see own and shared experts, the shared gate sees all."""
    each, wide = max(1, recipe.experts // 2), recipe.expert_widths[0]
    for layer in ("one", "two"):
        outs: list[list[Tensor]] = []
        for stream in range(tasks + 1):
            first = torch.relu(group(p, f"head.{layer}.first", stream, x[stream]))
            outs.append(
                [
                    torch.relu(group(p, f"head.{layer}.second", stream * each + e, first[e * wide : (e + 1) * wide]))
                    for e in range(each)
                ]
            )
        shared = x[tasks]
        x = [mixed(x[task] @ p[f"head.{layer}.gate"][task], outs[task] + outs[tasks]) for task in range(tasks)]
        if layer == "one":
            x.append(mixed(shared @ p["head.one.shared_gate"][0], [out for stream in outs for out in stream]))
    return [tower(p, task, x[task]) for task in range(tasks)]


def network_per_task(p: Parameters, x: list[Tensor], tasks: int) -> list[Tensor]:
    """What two layers of its own make of every task's stream."""
    first = [torch.relu(group(p, "head.first", task, x[task])) for task in range(tasks)]
    return [torch.relu(group(p, "head.second", task, first[task])) for task in range(tasks)]


def esmm(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """A network and a tower per task; the space that is trained on is the loss's affair."""
    return [tower(p, task, hidden) for task, hidden in enumerate(network_per_task(p, x, tasks))]


def aitm(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """Every task after the first attends over what the one before hands on and what it found itself."""
    own = network_per_task(p, x, tasks)
    z = [own[0]]
    for task in range(1, tasks):
        at = f"head.transfers.{task - 1}"
        handed = torch.relu(affine(p, f"{at}.give", z[-1]))
        scores = [affine(p, f"{at}.left", u) @ affine(p, f"{at}.right", u) / len(u) ** 0.5 for u in (handed, own[task])]
        z.append(mixed(torch.stack(scores), [affine(p, f"{at}.value", u) for u in (handed, own[task])]))
    return [tower(p, task, z[task]) for task in range(tasks)]


def stem(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """The gate of a task sees every expert there is; those of other tasks as constants."""
    each, wide = max(1, recipe.experts // 2), recipe.expert_widths[0]
    outs = []
    for stream in range(tasks + 1):
        first = torch.relu(group(p, "head.first", stream, x[stream]))
        parts = [first[e * wide : (e + 1) * wide] for e in range(each)]
        outs.append([torch.relu(group(p, "head.second", stream * each + e, part)) for e, part in enumerate(parts)])
    logits = []
    for task in range(tasks):
        seen = []
        for stream in range(tasks + 1):
            mine = stream in (task, tasks)
            seen += [out if mine else out.detach() for out in outs[stream]]
        logits.append(tower(p, task, mixed((x[task] + x[tasks]) @ p["head.gate"][task], seen)))
    return logits


def ppnet(p: Parameters, x: list[Tensor], recipe: Recipe, tasks: int) -> list[Tensor]:
    """Three hidden layers a task, the last its tower's, each scaled by its gate; x ends in the two ids' embeddings."""
    logits = []
    for task in range(tasks):
        stream, prior = x[task][: -2 * recipe.width], x[task][-2 * recipe.width :]
        hidden = stream
        for number, layer in enumerate(("head.first", "head.second", "head.towers.hidden")):
            gate = gate_unit(p, f"head.gates.{number}", task, prior, stream)
            hidden = gate * torch.relu(group(p, layer, task, hidden))
        logits.append(group(p, "head.towers.last", task, hidden).squeeze())
    return logits


HEADS: dict[str, Callable[[Parameters, list[Tensor], Recipe, int], list[Tensor]]] = {
    "aitm": aitm,
    "esmm": esmm,
    "mmoe": mmoe,
    "ple": ple,
    "ppnet": ppnet,
    "shared-bottom": shared_bottom,
    "single-task": single_task,
    "slim": slim,
    "stem": stem,
}
