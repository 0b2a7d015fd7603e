"""The bottoms against the slow reference, forward and backward; and what the design page says of TIM, TRM and masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.batches import Batch, Loader
from models.bottoms.dtrn import DTRN
from models.config import Recipe, named
from models.embeddings import Shape
from models.names import VARIANTS, bottoms, parts, settings
from models.network import Network
from models.refinement import Refinement
from models.requests import MASKED, Requests, Sequences
from tests import reference
from tests.shops import Sizes, encoded, lively

SMALL = Recipe(bottom="dtrn", width=4, ffn=6, hyper=5, experts=3, expert_widths=(8, 6), tower=8)

SHAPES = {
    "all kinds of length": Sizes(),
    "one task": Sizes(tasks=1),
    "one action": Sizes(lengths=(12,), events=(40,)),
    "one request of one candidate": Sizes(requests=1, candidates=1, events=(60, 60, 60)),
    "histories of one event": Sizes(lengths=(1, 1), events=(30, 30)),
    "no history at all": Sizes(events=(0, 0, 0)),
    "bare ids": Sizes(requests=3, user=(5,), item=(9,), context=(), lengths=(9, 3), events=(40, 10)),
    "every history full": Sizes(requests=3, candidates=2, lengths=(17, 8, 2), events=(400, 400, 400)),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def small(bottom: str = "dtrn", **parts: Any) -> Recipe:
    """`SMALL` with a bottom of this name, which may be a variant."""
    return replace(SMALL, **settings(bottom), **parts)


def whole(requests: Requests) -> Batch:
    """All requests in one batch."""
    (batch,) = Loader(requests).batches(len(requests) + 1)
    return batch


def require_the_same(network: Network, requests: Requests, tasks: int) -> None:
    """Logits, and the gradients of all parameters towards a random direction, are those of the reference."""
    fast = network(whole(requests))
    slowly = reference.logits(dict(network.named_parameters()), requests, network.recipe, tasks)
    assert fast.shape == (len(requests), tasks)
    torch.testing.assert_close(fast, slowly, rtol=1e-9, atol=1e-9)
    assert fast.std() > 0.05 or fast.numel() < 4  # a comparison of constants would prove nothing
    towards = torch.randn_like(fast)
    names, parameters = zip(*network.named_parameters(), strict=True)
    mine = torch.autograd.grad((fast * towards).sum(), parameters, materialize_grads=True)
    theirs = torch.autograd.grad((slowly * towards).sum(), parameters, materialize_grads=True)
    for name, a, b in zip(names, mine, theirs, strict=True):
        torch.testing.assert_close(a.to_dense(), b, rtol=1e-7, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(
    "change",
    [*({"bottom": bottom} for bottom in bottoms()), {"layers": 2}, {"bottom": "dmt", "layers": 2}],
    ids=[*bottoms(), "dtrn, two layers", "dmt, two layers"],
)
def test_logits_and_gradients_are_the_references(sizes: Sizes, change: dict[str, Any]) -> None:
    for seed in range(1 if max(sizes.events) > 100 or change.get("bottom") in VARIANTS else 2):
        network = lively(small(**change), sizes.shape, seed)
        require_the_same(network, encoded(sizes, seed), sizes.tasks)


def test_every_bottom_has_its_reference() -> None:
    assert set(reference.BOTTOMS) == set(parts("bottoms"))


def test_a_variant_has_what_its_name_says_and_no_more() -> None:
    """Transformers, hypernetworks and refinements of each, by their parameters; T = 3 tasks, A = 4 actions."""
    shape = Sizes(lengths=(9, 3, 3, 3), events=(40, 8, 8, 8)).shape

    def built(name: str) -> tuple[int, int, int]:
        """Transformers, conditions of the hypernetwork, networks of the refinement."""
        tables = [n for n, _ in Network(small(name), shape).bottom.named_parameters()]
        conditions = sum(n.endswith(("hypernetwork.task.weight", "hypernetwork.action.weight")) for n in tables)
        refinements = [len(p) for n, p in Network(small(name), shape).bottom.named_parameters() if n == "refinement.squeeze"]
        assert ("matches.table" in tables) == (not name.endswith("-plain"))
        return sum(n.endswith("transformer.query.weight") for n in tables), conditions, sum(refinements)

    assert {name: built(name) for name in bottoms() if name.startswith(("dtrn", "dmt"))} == {
        "dtrn": (1, 2, 3), "dmt": (4, 0, 0), "dtrn-plain": (1, 2, 3), "dmt-plain": (4, 0, 0),
        "dtrn-tim": (1, 2, 0), "dtrn-trm": (1, 0, 3), "dtrn-shared-trm": (1, 2, 1),
        "dtrn-task-only": (1, 1, 3), "dtrn-action-only": (1, 1, 3), "dtrn-separate": (12, 0, 3),
        "dmt-senet": (4, 0, 1), "dmt-trm": (4, 0, 3), "dmt-x3": (12, 0, 0),
    }  # fmt: skip


def test_dmt_three_times_is_at_least_as_large_as_dtrn() -> None:
    """The control for capacity: at the default sizes, whatever the head; DTRN has fewer parameters than one DMT already."""
    shape = Sizes(lengths=(50, 20, 20, 20), events=(40, 8, 8, 8)).shape

    def size(name: str) -> int:
        return sum(p.numel() for p in Network(named(name), shape).parameters())

    for head in parts("heads"):
        assert size(f"dmt-x3+{head}") > size(f"dtrn+{head}"), head
    assert size("dmt-x3") > size("dmt") > size("dtrn")


def test_refinement_starts_as_the_identity() -> None:
    x = torch.randn(3, 10, 8, 4)
    assert torch.equal(Refinement(3, 8, 4)(x), x)


def test_at_the_start_tasks_differ_only_a_little() -> None:
    """W ≈ 0: γ ≈ 1 and β ≈ 0, so that training starts from one shared Transformer."""
    sizes = Sizes()
    torch.manual_seed(0)
    bottom = Network(SMALL, sizes.shape).bottom
    assert isinstance(bottom, DTRN)
    gamma, beta = bottom.interest.hypernetwork()
    assert gamma.shape == (3, 3, 1, 2, 4)
    assert 0 < (gamma - 1).abs().max() < 0.2
    assert 0 < beta.abs().max() < 0.2


def test_an_empty_history_is_exactly_zero() -> None:
    sizes = Sizes(events=(60, 6, 2))
    requests = encoded(sizes, 3)
    network = lively(SMALL, sizes.shape, 3)
    empty = (requests.end == requests.start)[requests.request]
    assert empty.any()
    assert not empty.all()
    interests = network.bottom(whole(requests)).view(3, len(requests), -1, 4)[:, :, -3:]
    assert (interests[:, torch.from_numpy(empty)] == 0).all()
    assert (interests[:, torch.from_numpy(~empty)] != 0).all()


def test_what_lies_after_a_request_changes_no_bit() -> None:
    """Tokens outside every span are replaced, times too; the logits stay the same to the last bit."""
    sizes = Sizes()
    requests = encoded(sizes, 4)
    random = np.random.default_rng(0)
    tokens, times = [], []
    for action, (token, time) in enumerate(zip(requests.sequences.tokens, requests.sequences.times, strict=True)):
        read = np.zeros(len(token), bool)
        for start, end in zip(requests.start[:, action], requests.end[:, action], strict=True):
            read[start:end] = True
        tokens.append(np.where(read[:, None], token, random.integers(0, 4, token.shape)).astype(np.int32))
        times.append(np.where(read, time, 0))
    changed = replace(requests, sequences=Sequences(requests.sequences.users, requests.sequences.offsets, tokens, times))
    assert any((a != b).any() for a, b in zip(tokens, requests.sequences.tokens, strict=True))
    network = lively(SMALL, sizes.shape, 4)
    assert torch.equal(network(whole(requests)), network(whole(changed)))


@pytest.mark.parametrize("bottom", bottoms())
def test_a_masked_label_moves_no_weight(bottom: Any) -> None:
    sizes = Sizes()
    requests = encoded(sizes, 5)
    network = lively(small(bottom), sizes.shape, 5).float()
    weight = torch.tensor([1.0, 2.0, 0.5])

    def gradients(label: Any) -> list[torch.Tensor]:
        loss, _ = network.loss(whole(replace(requests, label=label)), weight)
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        return [g.to_dense() for g in found if g is not None]

    masked = np.where(np.arange(len(requests))[:, None] % 2 == 0, MASKED, requests.label.clip(0)).astype(np.int8)
    batch = whole(replace(requests, label=masked))
    known = masked >= 0
    logits = network(batch).detach().double().numpy()
    each = np.logaddexp(0, logits) - np.where(masked == 1, logits, 0)
    expected = [each[known[:, t], t].mean() for t in range(3)]
    loss, per_task = network.loss(batch, weight)
    np.testing.assert_allclose(per_task.detach(), expected, rtol=1e-5, atol=1e-6)
    assert loss.item() == pytest.approx(np.dot(expected, weight.numpy()), rel=1e-5)
    none = gradients(np.full_like(masked, MASKED))
    assert all((g == 0).all() for g in none)
    one_task = masked.copy()
    one_task[:, 1:] = MASKED
    loss, _ = network.loss(whole(replace(requests, label=one_task)), weight)
    towers = torch.autograd.grad(loss, network.head.towers.hidden.weight)[0]
    assert (towers[0] != 0).any()
    assert (towers[1:] == 0).all()


def test_the_loss_is_finite_where_a_logit_is_huge() -> None:
    sizes = Sizes()
    network = lively(SMALL, sizes.shape, 6).float()
    with torch.no_grad():
        network.head.towers.last.bias.fill_(1e4)
    loss, _ = network.loss(whole(encoded(sizes, 6)), torch.ones(3))
    assert torch.isfinite(loss)
    assert loss > 100


@pytest.mark.parametrize("bottom", bottoms())
def test_a_request_scores_alone_as_it_does_among_others(bottom: Any) -> None:
    sizes = Sizes(requests=40, candidates=9, events=(300, 60, 20))
    requests = encoded(sizes, 7)
    torch.manual_seed(7)
    network = Network(small(bottom, width=16), sizes.shape).eval()
    with torch.inference_mode():
        together = torch.sigmoid(network(whole(requests)))
        alone = torch.cat([torch.sigmoid(network(b)) for b in Loader(requests).batches(1)])
        backwards = torch.cat([torch.sigmoid(network(whole(requests.take(np.array([u]))))) for u in range(39, -1, -1)])
    assert (together - alone).abs().max() < 1e-6
    assert (
        backwards
        - torch.cat([alone[s:e] for s, e in reversed(list(zip(requests.offsets, requests.offsets[1:], strict=False)))])
    ).abs().max() < 1e-6


@pytest.mark.parametrize("wide_softmax", [False, True], ids=["", "softmax in float32"])
@pytest.mark.parametrize(("bottom", "head"), [*((b, "mmoe") for b in bottoms()), *(("dtrn", h) for h in parts("heads"))])
def test_half_precision_runs_and_stays_near(
    bottom: str, head: str, wide_softmax: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU trains with, tried on the CPU: bfloat16 keeps 8 bits, so 2 % of a loss near ln 2.

    A GPU's autocast gives a softmax in float32, where the CPU's leaves it in bfloat16.
    """
    if wide_softmax:
        softmax = Tensor.softmax

        def widened(x: Tensor, dim: int) -> Tensor:
            return softmax(x.float() if torch.is_autocast_enabled("cpu") else x, dim)

        monkeypatch.setattr(Tensor, "softmax", widened)
    sizes = Sizes(requests=30)
    batch = whole(encoded(sizes, 9))
    torch.manual_seed(9)
    network = Network(small(bottom, width=16, head=head), sizes.shape)
    exact, _ = network.loss(batch, torch.ones(3))
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = network.loss(batch, torch.ones(3))
    torch.autograd.backward(rough)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in network.parameters())


def test_dropped_rows_are_the_unknown_row_and_the_rate_holds() -> None:
    sizes = Sizes(requests=300, candidates=9, item=(900, 900))
    requests = encoded(sizes, 8)
    requests = replace(requests, item=requests.item + 1)
    (batch,) = Loader(requests).batches(10**6, dropout=(0.25, np.random.default_rng(1)))
    item = batch.item_BF.clone()
    item[:, 0] = batch.items[item[:, 0]]
    known = requests.item > 0
    dropped = (item.numpy() == 0) & known
    assert dropped.sum() / known.sum() == pytest.approx(0.25, abs=0.03)
    assert (item.numpy()[~known] == 0).all()
    assert (item.numpy()[known & ~dropped] == requests.item[known & ~dropped]).all()


def test_every_kind_of_row_is_dropped_at_the_rate() -> None:
    sizes = Sizes(requests=600, candidates=9, item=(900, 900), events=(4000, 4000))
    requests = encoded(sizes, 8)
    (whole,) = Loader(requests).batches(10**6)
    (batch,) = Loader(requests).batches(10**6, dropout=(0.25, np.random.default_rng(1)))
    for name in ("user_UF", "item_BF", "context_BC", "token_QF"):
        before, after = (getattr(b, name).clone() for b in (whole, batch))
        ids = {"user_UF": "users", "item_BF": "items", "token_QF": "items"}.get(name)
        if ids:
            before[:, 0], after[:, 0] = getattr(whole, ids)[before[:, 0]], getattr(batch, ids)[after[:, 0]]
        known = before > 0
        assert known.sum() > 500, name
        assert ((after == 0) & known).sum() / known.sum() == pytest.approx(0.25, abs=0.05), name
        assert ((after == before) | (after == 0)).all(), name


def test_width_and_heads_must_agree() -> None:
    with pytest.raises(ValueError, match="width 6 is not divisible by attention_heads 4"):
        Recipe(bottom="dtrn", width=6, attention_heads=4)


def test_shape_of_a_contract_counts_the_unknown_row() -> None:
    from models.vocabulary import Vocabulary
    from tests.shops import shop, terms

    contract = terms()
    vocabulary = Vocabulary.fit(shop(contract, "2026-03-30", seed=1), contract)
    shape = Shape.of(contract, vocabulary)
    assert shape == Shape((31,), (27, 5), (6, 6), tasks=2, actions=2, length=4, given=(-1, 0))
