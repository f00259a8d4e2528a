"""The processes: how data becomes noise, what the network predicts, which noise levels to visit.

Both processes are x_t = alpha(t) x + sigma(t) eps with t = 0 data and t = 1 noise. Rectified flow
(Liu et al. 2022) has alpha = 1 - t, sigma = t; VP (Ho et al. 2020, Song et al. 2021) has
alpha^2 + sigma^2 = 1. The network may predict x, eps or the velocity dx_t/dt.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError

PREDICTIONS = ("x", "eps", "velocity")
#: Clock at which it is nearly decided what a picture, a clip or a sound shows (LOG.md). Words wait
#: for it, and new noise of a sampler that comes earlier would take decisions back.
DECIDED = 0.8
Clock = Float[Tensor, "b n"]
Latents = Float[Tensor, "b n c"]


class RectifiedFlow:
    """Straight paths from data to noise."""

    late = 0  # steps by which a discrete process counts its clocks late, as diffusers does: 0 or 1

    def __init__(
        self,
        prediction: str = "x",  # what the network's output means: x | eps | velocity
        std: float = 1.0,  # width of the logit-normal density of training noise levels
        uniform: float = 0.1,  # share of noise levels drawn uniformly instead
        t_min: float = 0.05,  # below it the loss weight is constant, and sampling stops there
        shift: float = 1.0,  # of the sampling clocks towards noise, where scenes are decided
    ):
        """Choose the prediction and the training noise levels (Esser et al. 2024, eq. 19)."""
        if prediction not in PREDICTIONS:
            wanted = ", ".join(PREDICTIONS)
            raise UsageError(f"flow.prediction={prediction} is unknown; choose one of {wanted}.")
        self.prediction, self.std, self.uniform, self.t_min = prediction, std, uniform, t_min
        self.shift = shift

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the data at clock t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the noise at clock t."""
        return t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return d alpha/dt and d sigma/dt."""
        return -torch.ones_like(t), torch.ones_like(t)

    def interpolate(self, x: Latents, eps: Latents, t: Clock) -> Latents:
        """Return x_t = alpha x + sigma eps, every token at its own clock."""
        return self.alpha(t)[..., None] * x + self.sigma(t)[..., None] * eps

    def velocity(self, x: Latents, eps: Latents, t: Clock) -> Latents:
        """Return dx_t/dt."""
        da, ds = self.slopes(t)
        return da[..., None] * x + ds[..., None] * eps

    def to_x(self, output: Latents, x_t: Latents, t: Clock) -> Latents:
        """Return the data that an output of the network stands for."""
        a, s = self.alpha(t)[..., None], self.sigma(t)[..., None]
        if self.prediction == "x":
            return output
        if self.prediction == "eps":
            return (x_t - s * output) / a.clamp_min(1e-4)
        da, ds = (d[..., None] for d in self.slopes(t))  # solve x_t, dx_t/dt for x
        return (ds * x_t - s * output) / (ds * a - s * da)

    def from_x(self, x: Latents, x_t: Latents, t: Clock) -> Latents:
        """Return the output of the network that stands for some data, the inverse of `to_x`."""
        if self.prediction == "x":
            return x
        eps = self.to_eps(x, x_t, t)
        return eps if self.prediction == "eps" else self.velocity(x, eps, t)

    def to_eps(self, x: Latents, x_t: Latents, t: Clock) -> Latents:
        """Return the noise that takes x to x_t."""
        return (x_t - self.alpha(t)[..., None] * x) / self.sigma(t)[..., None].clamp_min(1e-4)

    def loss_weight(self, t: Clock) -> Clock:
        """Return the weight of the squared error of x: that of the velocity, clamped at t_min."""
        return 1 / t.clamp_min(self.t_min).square()

    def sample_t(
        self,
        b: int,
        mean: float,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " b"]:
        """Return training noise levels in (0, 1): logit-normal around `mean`, partly uniform.

        They are stratified over the batch: one in every b-th part of the distribution.
        """
        order = torch.randperm(b, generator=generator, device=device)
        u = (order + torch.rand(b, generator=generator, device=device)) / b
        u = u.clamp(1e-4, 1 - 1e-4)
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        flat = torch.rand(b, generator=generator, device=device) < self.uniform
        uniform = torch.rand(b, generator=generator, device=device)
        return torch.where(flat, uniform, torch.sigmoid(mean + self.std * normal))

    def times(self, steps: int, even: bool = False) -> Float[Tensor, " n"]:
        """Return steps + 1 clocks from 1 to 0; the last stop before data is t_min.

        They are even, then shifted: t = s u / (1 + (s - 1) u) (Esser et al. 2024, eq. 23), unless
        they are to stay even.
        """
        s, t = 1.0 if even else self.shift, self.t_min
        u = torch.linspace(1, t / (s - (s - 1) * t), steps)
        return torch.cat([s * u / (1 + (s - 1) * u), torch.zeros(1)])


class VP(RectifiedFlow):
    """The variance-preserving process with the scaled-linear betas of latent diffusion."""

    def __init__(
        self,
        prediction: str = "eps",
        beta_min: float = 0.85,  # of the continuous process: 1000 times the first and
        beta_max: float = 12.0,  # last beta of the discrete one (Rombach et al. 2022)
        t_min: float = 0.002,  # sigma is 0.04 there; noise grows faster than on straight paths
        **common,  # std, uniform, shift: see RectifiedFlow
    ):
        """Choose the prediction and the schedule."""
        super().__init__(prediction, t_min=t_min, **common)
        self.root_min, self.root_max = beta_min**0.5, beta_max**0.5

    def _log_alpha(self, t: Tensor) -> Tensor:
        """Return -1/2 of the integral of beta, where sqrt(beta) is linear in t."""
        low, rise = self.root_min, self.root_max - self.root_min
        return -0.5 * (low**2 * t + low * rise * t**2 + rise**2 * t**3 / 3)

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the data at clock t."""
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the noise at clock t."""
        return (-torch.expm1(2 * self._log_alpha(t))).clamp_min(0).sqrt()

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return d alpha/dt and d sigma/dt."""
        beta = (self.root_min + (self.root_max - self.root_min) * t).square()
        alpha = self.alpha(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha.square() / self.sigma(t).clamp_min(1e-4)

    def loss_weight(self, t: Clock) -> Clock:
        """Return alpha^2 / sigma^2: the weight of the error of eps, in terms of x."""
        return (self.alpha(t) / self.sigma(t.clamp_min(self.t_min))).square()
