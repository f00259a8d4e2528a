"""The process of UniDiffuser: the thousand betas of latent diffusion, and clocks between them."""

import torch
from torch import Tensor

from unigen.flow import VP

BETAS, STEPS = (0.00085, 0.012), 1000


class DiscreteVP(VP):
    """The variance-preserving process at clocks n / 1000, log-linear in between.

    alpha_n^2 = prod_{i <= n} (1 - beta_i); at clock 0 nothing is noise. `unigen.flow.VP` is its
    limit for many small steps and differs by 2e-3 at most.
    """

    def __init__(self, prediction: str = "eps", late: int = 0, end: float = 0.0, **common):
        """prediction: what the network answers. common: see `unigen.flow.RectifiedFlow`.

        late: 1 has clocks count as diffusers does, where n / 1000 stands for n + 1 steps of noise
        and pure noise is seen at 999. end: the clock at which sampling stops; above 0, all steps
        are even.
        """
        super().__init__(prediction, **common)
        self.late, self.end = late, end
        low, high = (beta**0.5 for beta in BETAS)
        betas = torch.linspace(low, high, STEPS, dtype=torch.float32).square()
        logs = 0.5 * (1 - betas.double()).log().cumsum(0)
        self.logs = torch.cat([torch.zeros(1, dtype=torch.float64), logs])  # log alpha at n / 1000

    def _log_alpha(self, t: Tensor) -> Tensor:
        below, part, slope = self._between(t)
        return (self.logs.to(t.device)[below] + part * slope).to(t.dtype)

    def times(self, steps: int, even: bool = False) -> Tensor:
        """Return steps + 1 clocks from 1 to the end, which are even if they have an end."""
        return torch.linspace(1, self.end, steps + 1) if self.end else super().times(steps, even)

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return d alpha/dt and d sigma/dt."""
        alpha, slope = self.alpha(t), (STEPS * self._between(t)[2]).to(t.dtype)
        return slope * alpha, -slope * alpha.square() / self.sigma(t).clamp_min(1e-4)

    def _between(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step below a clock, how far beyond it, and the slope of log alpha there."""
        n, logs = t.double() * STEPS + self.late, self.logs.to(t.device)
        n = torch.where((n - n.round()).abs() < 1e-4, n.round(), n)  # whole steps stay whole
        below = n.floor().long().clamp(0, STEPS - 1)
        return below, (n - below).clamp(max=1), logs[below + 1] - logs[below]
