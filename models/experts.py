"""Experts and their mixing, the bulk of a head's work: of each stream's own, and of all streams' with a backward by hand.

    h[e] = relu(W₁[e]·x + b₁[e]),  o[e] = relu(W₂[e]·h[e] + b₂[e]),  y[t] = Σ_e g[t,e]·o[e](x[t])

What autograd would do, in fewer passes over memory: no tensor is laid out anew for a product, and what the gradient of a
mixture needs is made expert by expert. Letters: S streams, 1 or T · B samples · I inputs · E experts · W wide · N narrow.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.parts import Split
from models.towers import Grouped


def experts(first: Grouped, second: Grouped, x_SBI: Tensor) -> Tensor:
    """(S, B, e, narrow): e two-layer experts of each stream's own, the groups of `first` being streams, of `second` experts.

    x: (S, B, inputs), or (1, B, inputs) where all streams are one.
    """
    streams, samples = len(first.weight), x_SBI.shape[1]
    each, wide, narrow = len(second.weight) // streams, *second.weight.shape[1:]
    hidden = torch.relu(first(x_SBI)).view(streams, samples, each, wide).transpose(1, 2)
    out = torch.relu(second(hidden.reshape(streams * each, samples, wide)))
    return out.view(streams, each, samples, narrow).transpose(1, 2)


def mixed(gate_SBE: Tensor, out_SBEH: Tensor) -> Tensor:
    """(S, B, H): the experts' outputs, weighted by the softmax of their gate."""
    return (gate_SBE.softmax(-1).unsqueeze(-2) @ out_SBEH).squeeze(-2)


def mixture(gate_TIE: Tensor, first: nn.Linear, second: Grouped, x_SBI: Tensor | Split) -> Tensor:
    """(T, B, N): the experts that all tasks share, of stream t or of the only one, weighted by the softmax of gate t of it.

    `gate` is (T, I, E), `first` (I, E·W), `second` (E, W, N). Of a `Split` the first layer reads a request's columns once.
    """
    given = [first.weight, first.bias, second.weight, second.bias, gate_TIE]
    given += [x_SBI.sample_BK[None], x_SBI.request_UJ] if isinstance(x_SBI, Split) else [x_SBI]
    kind = gate_TIE.device.type
    apart = (x_SBI.of_B, x_SBI.at) if isinstance(x_SBI, Split) else ()
    if torch.is_autocast_enabled(kind):
        given = [x.to(torch.get_autocast_dtype(kind)) for x in given]
    with torch.autocast(kind, enabled=False):  # a GPU's softmax would be float32, and the products of two kinds are none
        return cast("Tensor", _Mixture.apply(*given, *apart))  # type: ignore[no-untyped-call]


ALIGNED = 16
"""Columns that a row of float32 fills 64 bytes with: a product is a fifth faster when its rows begin at such."""


class _Mixture(torch.autograd.Function):
    """The gates are read off the first layer's product, as T·E columns more: by themselves they are too narrow to be fast."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        first_bias: Tensor,
        second: Tensor,
        second_bias: Tensor,
        gate: Tensor,
        x_SBI: Tensor,
        request_UJ: Tensor | None = None,
        of_B: Tensor | None = None,
        at: slice = slice(None),
    ) -> Tensor:
        (experts, wide, narrow), (streams, samples, _), (tasks, inputs, _) = second.shape, x_SBI.shape, gate.shape
        x = x_SBI.flatten(0, 1)
        columns = len(first) + tasks * experts
        both = torch.cat([first, gate.transpose(1, 2).reshape(-1, inputs), first.new_zeros(-columns % ALIGNED, inputs)])
        bias = torch.cat([first_bias, first_bias.new_zeros(len(both) - len(first))])
        if request_UJ is None or of_B is None:
            product = torch.addmm(bias, x, both.t())
        else:
            of_request = torch.addmm(bias, request_UJ, _without(both, at).t())
            product = of_request.index_select(0, of_B).addmm_(x, both[:, at].t())
        hidden, logits = product[:, : len(first)], product[:, len(first) : columns].view(streams, samples, tasks, experts)
        hidden.relu_()
        out = torch.baddbmm(second_bias, hidden.view(-1, experts, wide).transpose(0, 1), second).relu_()  # (E, S·B, N)
        share = _own(logits).softmax(1)  # (T, E, B): a softmax over the last axis is slow where that is short
        of_stream = out.view(experts, streams, samples, narrow)
        mixed = share[:, 0, :, None] * of_stream[0]
        for expert in range(1, experts):
            mixed.addcmul_(share[:, expert, :, None], of_stream[expert])
        ctx.save_for_backward(x, both, second, share, hidden, out, request_UJ, of_B)
        ctx.at = at
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBN: Tensor) -> tuple[Tensor | None, ...]:
        x, both, second, share, hidden, out, request_UJ, of_B = ctx.saved_tensors
        (experts, wide, narrow), (tasks, _, samples) = second.shape, share.shape
        streams = len(x) // samples
        grad_out = torch.empty_like(out)
        grad_of_stream = grad_out.view(experts, streams, samples, narrow)
        for expert in range(experts):
            torch.mul(share[:streams, expert, :, None], grad_TBN[:streams], out=grad_of_stream[expert])
            for task in range(streams, tasks):  # those that share the only stream with the first
                grad_of_stream[expert].addcmul_(share[task, expert, :, None], grad_TBN[task])
        of_tasks = grad_TBN.view(streams, -1, samples, narrow).permute(0, 2, 3, 1).flatten(0, 1)  # (S·B, N, tasks of it)
        grad_share = torch.bmm(out.transpose(0, 1), of_tasks).view(streams, samples, experts, -1).permute(0, 3, 2, 1)
        grad_share = grad_share.reshape(share.shape)
        _pass_relu(grad_out, out)
        product = x.new_empty(len(x), len(both))
        columns = experts * (wide + tasks)
        product[:, experts * wide :] = 0  # a gate's columns of the streams that it does not read stay 0
        grad_hidden, grad_logits = product[:, : experts * wide], product[:, experts * wide : columns]
        for expert in range(experts):
            torch.mm(grad_out[expert], second[expert].t(), out=grad_hidden[:, expert * wide : (expert + 1) * wide])
        _pass_relu(grad_hidden, hidden)
        own = _own(grad_logits.view(streams, samples, tasks, experts))
        own.copy_(share * (grad_share - (share * grad_share).sum(1, keepdim=True)))
        grad_second = torch.bmm(hidden.view(-1, experts, wide).permute(1, 2, 0), grad_out)
        grad_x = (product @ both[:, ctx.at]).view(streams, samples, -1)
        grad_both, grad_request = product.t() @ x, None
        if request_UJ is None:
            grad_first_bias = grad_hidden.sum(0)
        else:
            begin = torch.searchsorted(of_B, torch.arange(len(request_UJ), device=of_B.device))
            of_request = F.embedding_bag(torch.arange(samples, device=of_B.device), product, begin, mode="sum")
            grad_request = of_request @ _without(both, ctx.at)
            before, after = (of_request.t() @ request_UJ).tensor_split([ctx.at.start], dim=1)
            grad_both = torch.cat([before, grad_both, after], dim=1)
            grad_first_bias = of_request[:, : experts * wide].sum(0)
        return (
            grad_both[: experts * wide],
            grad_first_bias,
            grad_second,
            grad_out.sum(1, keepdim=True),
            grad_both[experts * wide : columns].view(tasks, experts, -1).transpose(1, 2),
            grad_x,
            grad_request,
            None,
            None,
        )


def _without(weight_CI: Tensor, at: slice) -> Tensor:
    """(C, …): the other columns."""
    return torch.cat([weight_CI[:, : at.start], weight_CI[:, at.stop :]], dim=1)


def _own(logits_SBTE: Tensor) -> Tensor:
    """(T, E, B): of every task's gate its own stream, or the only one; a view."""
    if len(logits_SBTE) == 1:
        return logits_SBTE[0].permute(1, 2, 0)
    return logits_SBTE.diagonal(dim1=0, dim2=2).permute(2, 1, 0)


def _pass_relu(gradient: Tensor, out: Tensor) -> None:
    """Let `gradient` through, in place, where `out`, what the relu gave, is above 0."""
    torch.ops.aten.threshold_backward.grad_input(gradient, out, 0, grad_input=gradient)
