"""Output layers by least squares, after the last step: what gradients leave undone there.

With everything below it fixed, the flow loss is quadratic in an output layer, so that its minimum
is the solution of a linear system, over as many samples as one likes. Gradients come to it slowly
where little varies, such as in how common each thing is where nothing but noise is seen (LOG.md).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

RIDGE = 1e-5  # of the mean variance of what a layer sees: holds it where there is none


class Normal:
    """The normal equations of one layer, for the change of its weights and its offset."""

    def __init__(self, layer: nn.Linear):
        """`layer`: what is to be solved."""
        self.layer, n = layer, layer.in_features + 1
        self.square = torch.zeros(n, n, dtype=torch.float64, device=layer.weight.device)
        self.cross = self.square.new_zeros(n, layer.out_features)

    def hook(self, layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """Keep what the layer sees and answers; let the loss begin at the answer."""
        self.seen, self.output = inputs[0].detach(), output.detach().float().requires_grad_()
        return self.output

    def add(self, slope: Tensor, bend: Tensor) -> None:
        """Count tokens by the first and second derivatives of the loss, alike for all channels."""
        rows = torch.cat([self.seen, torch.ones_like(self.seen[..., :1])], -1)
        rows = rows.flatten(0, -2).double()
        self.square += rows.T @ (rows * bend.flatten(0, -2)[:, :1].double())
        self.cross -= rows.T @ slope.flatten(0, -2).double()

    @torch.no_grad()
    def solve(self) -> None:
        """Change the layer to the least squares, and not at all where nothing tells."""
        hold = RIDGE * self.square.diagonal().mean() * torch.eye(len(self.square))
        change = torch.linalg.solve(self.square + hold.to(self.square), self.cross)
        self.layer.weight += change[:-1].T.to(self.layer.weight)
        self.layer.bias += change[-1].to(self.layer.bias)


def refit(
    layers: Mapping[str, nn.Linear],  # by the name of its loss; losses quadratic in the output
    losses: Iterable[Callable[[], Mapping[str, Tensor]]],  # each of another batch
    mean: Callable[[Tensor], Tensor] = lambda x: x,  # over processes, of what they counted
) -> None:
    """Set output layers to the minimum of the sum of some losses, in place.

    A layer answers once in a loss, or not at all, and each loss knows no other layer's answer.
    """
    systems = {name: Normal(layer) for name, layer in layers.items()}
    with ExitStack() as stack:
        for system in systems.values():
            stack.callback(system.layer.register_forward_hook(system.hook).remove)
        for loss in losses:
            with torch.enable_grad():
                found = {name: x for name, x in loss().items() if name in systems}
                here = [systems[name] for name in found]
                outputs: list[Any] = [system.output for system in here]
                slopes = torch.autograd.grad(sum(found.values()), outputs, create_graph=True)
                bends = torch.autograd.grad(sum(slope.sum() for slope in slopes), outputs)
            for system, slope, bend in zip(here, slopes, bends, strict=True):
                system.add(slope.detach(), bend)
    for system in systems.values():
        system.square, system.cross = mean(system.square), mean(system.cross)
        if system.square.any():
            system.solve()
