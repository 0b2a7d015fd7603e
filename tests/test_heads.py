"""Every head against its slow reference, forward and backward; what its paper says of it; and torch-rechub's MMoE and PLE."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models import heads
from models.config import Recipe
from models.embeddings import Shape
from models.gates import GateUnit
from models.heads.mmoe import MMoE
from models.heads.ple import PLE
from models.names import parts
from models.network import Network
from models.parts import Head
from tests.reference_heads import HEADS
from tests.shops import Sizes, encoded, enliven, lively
from tests.test_dtrn_reference import SHAPES, SMALL, require_the_same, whole

TASKS, WIDTH = 3, 10


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("head", parts("heads"))
def test_logits_and_gradients_are_the_references(head: str, sizes: Sizes) -> None:
    """Over pooled histories, which cost the reference little."""
    for seed in range(2):
        network = lively(replace(SMALL, bottom="pooled", head=head), sizes.shape, seed)
        require_the_same(network, encoded(sizes, seed), sizes.tasks)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("bottom", sorted(set(parts("bottoms")) - {"pooled"}))
@pytest.mark.parametrize("head", sorted(set(parts("heads")) - {"mmoe"}))  # mmoe: with every bottom in test_dtrn_reference
def test_they_are_too_over_streams_of_each_tasks_own(head: str, bottom: str, tasks: int) -> None:
    sizes = Sizes(tasks=tasks, requests=2, lengths=(9, 3), events=(40, 8))
    network = lively(replace(SMALL, bottom=bottom, head=head), sizes.shape, 3)
    require_the_same(network, encoded(sizes, 3), tasks)


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_ple_gives_half_of_the_experts_to_each_task(experts: int) -> None:
    sizes = Sizes(requests=2, events=(20, 5, 2))
    network = lively(replace(SMALL, bottom="pooled", head="ple", experts=experts), sizes.shape, 4)
    require_the_same(network, encoded(sizes, 4), sizes.tasks)
    assert network.head.one.gate.shape[-1] == 2 * max(1, experts // 2)


def test_every_head_has_its_reference() -> None:
    assert set(HEADS) == set(parts("heads"))


def test_single_task_shares_nothing_at_all() -> None:
    """The loss of one task moves no parameter of another: embeddings, Transformers and towers included."""
    sizes = Sizes()
    network = lively(replace(SMALL, head="single-task"), sizes.shape, 5)
    batch = whole(encoded(sizes, 5))
    per_task = network.loss(batch, torch.ones(sizes.tasks).double())[1]
    for task in range(sizes.tasks):
        for name, gradient in _gradients(network, per_task[task]).items():
            if name.startswith("bottom."):
                assert gradient.any() == name.startswith(f"bottom.{task}."), (task, name)
            else:  # the head's layers lie side by side in one tensor
                assert gradient[task].any(), (task, name)
                assert not gradient[torch.arange(sizes.tasks) != task].any(), (task, name)
    assert len(network.id_tables()) == 2 * sizes.tasks


def test_what_is_shared_is_shared() -> None:
    """Of a bottom that serves all tasks there is one, whatever the head; for PLE, DTRN has one task more."""
    shape = Sizes().shape
    for head in ("mmoe", "ple", "shared-bottom"):
        assert len(Network(replace(SMALL, head=head), shape).id_tables()) == 2
    hypernetwork = Network(replace(SMALL, head="ple"), shape).bottom.interest.hypernetwork
    assert hypernetwork.task.weight.shape[0] == shape.tasks + 1


def _gradients(network: Network, value: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("base", ["pooled", "dmt"])
def test_stem_reads_every_task_and_trains_only_its_own_and_the_shared(base: str) -> None:
    """All forward, task-specific backward: embeddings, encoders, experts and gates."""
    sizes = Sizes(lengths=(9, 7), events=(60, 40))
    network = lively(replace(SMALL, bottom="stem", head="stem", base=base), sizes.shape, 9)
    batch = whole(encoded(sizes, 9))
    logits = network(batch)
    for task in range(sizes.tasks):
        trained = {task, sizes.tasks}  # the shared stream is the last
        for name, gradient in _gradients(network, logits[:, task].sum()).items():
            side, part = name.split(".")[:2]
            if side == "bottom":
                assert gradient.any() == (int(part) in trained), (task, name)
            elif part in ("first", "second"):  # streams lie side by side in one tensor, of `second` each with its experts
                assert {s for s, g in enumerate(gradient.view(sizes.tasks + 1, -1)) if g.any()} == trained, (task, name)
    for other in range(sizes.tasks + 1):
        changed = deepcopy(network)
        with torch.no_grad():
            for table in changed.bottom[other].id_tables():
                table.mul_(1.1)
        assert (changed(batch) != logits).any(0).all(), other  # every task's logits hang on the embeddings of every stream


def test_stem_has_tables_for_each_stream() -> None:
    shape = Sizes().shape

    def tables(head: str) -> int:
        return len(Network(replace(SMALL, bottom="stem", head=head), shape).id_tables()) // 2

    assert (tables("mmoe"), tables("single-task"), tables("ple"), tables("stem")) == (3, 3, 4, 4)
    for head in parts("heads"):
        assert tables(head) == shape.tasks + heads.named(head).extra, head


def test_a_gate_of_pepnet_trains_its_prior_and_not_what_it_scales() -> None:
    torch.manual_seed(3)
    gate = GateUnit(SMALL, 2, 4, WIDTH, 5).double()
    prior, x = torch.randn(2, 7, 4).double().requires_grad_(), torch.randn(2, 7, WIDTH).double().requires_grad_()
    assert torch.equal(gate(prior, x), torch.ones(2, 7, 5).double())
    enliven(gate)
    out = gate(prior, x)
    assert out.min() > 0
    assert out.max() < 2
    assert (gate(prior, x + 1) != out).any()
    of_prior, of_x = torch.autograd.grad(out.sum(), (prior, x), materialize_grads=True)
    assert of_prior.any()
    assert not of_x.any()


def test_pepnet_starts_as_its_base() -> None:
    sizes = Sizes()
    network = Network(replace(SMALL, bottom="pepnet", head="ppnet", base="dmt"), sizes.shape)
    batch = whole(encoded(sizes, 10))
    assert torch.equal(network.bottom(batch), network.bottom.base(batch))
    assert network.bottom.ids(batch).shape == (1, len(batch.item_BF), 2 * SMALL.width)


def test_shared_bottom_is_as_large_as_the_experts_of_mmoe() -> None:
    """Up to the biases of the second layer."""
    shape = Sizes().shape

    def size(head: str) -> int:
        network = Network(replace(SMALL, bottom="pooled", head=head), shape)
        return sum(p.numel() for name, p in network.head.named_parameters() if name.split(".")[0] in ("first", "second"))

    assert size("mmoe") - size("shared-bottom") == (SMALL.experts - 1) * SMALL.expert_widths[1]


def test_every_head_starts_at_the_base_rates() -> None:
    sizes = Sizes()
    rates = torch.tensor([0.2, 0.05, 0.5])
    for head in parts("heads"):
        network = Network(replace(SMALL, bottom="pooled", head=head), sizes.shape)
        network.start_from(rates)
        with torch.no_grad():
            network.head.towers.last.weight.zero_()
            torch.testing.assert_close(torch.sigmoid(network(whole(encoded(sizes, 6))))[0], rates)


@pytest.mark.parametrize("given", [(-1, 0, 1), (-1, -1, 0), (2, 0, -1), ()])
def test_esmm_fits_conditional_tasks_to_all_samples(given: tuple[int, ...]) -> None:
    """Against the probabilities of the paper: of a chain, the product; known not to have happened once one of it is."""
    shape = replace(Sizes().shape, given=given)
    head = Network(replace(SMALL, bottom="pooled", head="esmm"), shape).head
    torch.manual_seed(7)
    logits = torch.randn(200, 3, requires_grad=True)
    label = torch.randint(0, 2, (200, 3)).float()
    known = torch.rand(200, 3) < 0.8
    per_task = head.loss(logits, label, known)
    expected = []
    for task in range(3):
        chain = [task]
        while given and given[chain[-1]] >= 0:
            chain.append(given[chain[-1]])
        total, count = torch.zeros(()), 0
        for row in range(200):
            p, happened = torch.ones(()), True
            for step in reversed(chain):
                p = p * torch.sigmoid(logits[row, step])
            for step in reversed(chain):
                if happened is True:
                    happened = bool(label[row, step]) if known[row, step] else None
            if happened is not None:
                total, count = total - torch.log(p if happened else 1 - p), count + 1
        expected.append(total / count)
    torch.testing.assert_close(per_task, torch.stack(expected))
    mine, theirs = (torch.autograd.grad(each.sum(), logits)[0] for each in (per_task, torch.stack(expected)))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    huge = head.loss(torch.full((2, 3), 1e4), torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    assert huge.isfinite().all()
    assert (huge > 100).all()
    assert (head.loss(logits, label, torch.zeros(200, 3, dtype=torch.bool)) == 0).all()


def test_aitm_hands_on_and_never_back() -> None:
    """A later task's loss reaches the earlier ones' networks, an earlier one's no later network."""
    sizes = Sizes()
    network = lively(replace(SMALL, bottom="pooled", head="aitm"), sizes.shape, 8)
    logits = network(whole(encoded(sizes, 8)))
    for task in range(3):
        gradient = torch.autograd.grad(logits[:, task].sum(), network.head.first.weight, retain_graph=True)[0]
        assert [bool(part.any()) for part in gradient] == [other <= task for other in range(3)]


# torch-rechub puts Linear, BatchNorm, activation where ours have Linear, activation. In eval mode, mean 0, variance 1 and
# no ε, its BatchNorm is γx + β, and γ = 1, β = 0 leave what both papers have. Its gates have a bias, set to 0: ours have
# none. Compared are the heads; its embedding layer, which turns all into float32, is left out.


class _AsItIs(torch.nn.Module):
    def forward(self, x: dict[str, Tensor], features: Any, squeeze_dim: bool) -> Tensor:
        return x["x"]


def _theirs(kind: str, recipe: Recipe, **sizes: int) -> Any:
    rechub = pytest.importorskip("torch_rechub.models.multi_task", reason="torch-rechub is not installed")
    features = pytest.importorskip("torch_rechub.basic.features")
    dense = [features.DenseFeature("x", embed_dim=WIDTH)]
    tower = {"dims": [recipe.tower], "activation": "relu"}
    model = getattr(rechub, kind)(
        features=dense, task_types=["classification"] * TASKS, **sizes,
        expert_params={"dims": list(recipe.expert_widths), "activation": "relu"}, tower_params_list=[tower] * TASKS,
    ).double()  # fmt: skip
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eps = 0.0
    model.embedding = _AsItIs()
    return model.eval()


def _set(linear: torch.nn.Linear, weight: Tensor, bias: Tensor | None = None) -> None:
    """`weight` as ours: (in, out)."""
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(torch.zeros_like(linear.bias) if bias is None else bias)


def _copy_towers(model: Any, head: Head) -> None:
    for task, tower in enumerate(model.towers):
        linears = [m for m in tower.mlp if isinstance(m, torch.nn.Linear)]
        for linear, ours in zip(linears, (head.towers.hidden, head.towers.last), strict=True):
            _set(linear, ours.weight[task], ours.bias[task, 0])


def _linears(mlp: Any) -> list[torch.nn.Linear]:
    return [m for m in mlp.mlp if isinstance(m, torch.nn.Linear)]


def _require_agreement(model: Any, head: Head) -> None:
    torch.manual_seed(1)
    mine = torch.randn(1, 7, WIDTH, dtype=torch.float64, requires_grad=True)
    other = mine.detach()[0].clone().requires_grad_()
    ours, theirs = torch.sigmoid(head(mine)), model({"x": other})
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    towards = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad((ours * towards).sum(), mine)[0][0], torch.autograd.grad((theirs * towards).sum(), other)[0]
    )


def _lively(kind: type[Head]) -> Any:
    torch.manual_seed(2)
    recipe = replace(SMALL, experts=4)
    head = kind(recipe, Shape((), (), (), TASKS, 0, 0), WIDTH).double()
    enliven(head)
    return head, recipe


def test_mmoe_is_torch_rechubs_with_the_same_weights() -> None:
    head, recipe = _lively(MMoE)
    model = _theirs("MMOE", recipe, n_expert=recipe.experts)
    wide = recipe.expert_widths[0]
    for e, expert in enumerate(model.experts):
        rows = slice(e * wide, (e + 1) * wide)
        first, second = _linears(expert)
        _set(first, head.first.weight[rows].T, head.first.bias[rows])
        _set(second, head.second.weight[e], head.second.bias[e, 0])
    for task, gate in enumerate(model.gates):
        _set(*_linears(gate), head.gate[task])
    _copy_towers(model, head)
    _require_agreement(model, head)


def test_ple_is_torch_rechubs_with_the_same_weights() -> None:
    head, recipe = _lively(PLE)
    each, wide = recipe.experts // 2, recipe.expert_widths[0]
    model = _theirs("PLE", recipe, n_level=2, n_expert_specific=each, n_expert_shared=each)
    for layer, ours in zip(model.cgc_layers, (head.one, head.two), strict=True):
        for number, expert in enumerate([*layer.experts_specific, *layer.experts_shared]):
            stream, e = divmod(number, each)
            first, second = _linears(expert)
            columns = slice(e * wide, (e + 1) * wide)
            _set(first, ours.first.weight[stream][:, columns], ours.first.bias[stream, 0, columns])
            _set(second, ours.second.weight[number], ours.second.bias[number, 0])
        for task, gate in enumerate(layer.gates_specific):
            _set(*_linears(gate), ours.gate[task])
    _set(*_linears(model.cgc_layers[0].gate_shared), head.one.shared_gate[0])
    _copy_towers(model, head)
    _require_agreement(model, head)
