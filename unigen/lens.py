"""How the denoiser meets a part: what it sees of noisy latents, what its output stands for.

Most latents are numbers: the network sees them as they are and predicts them. Latents made of
known points (the words of a text) are better seen through Bayes' rule: the network sees how likely
every point is behind the noise and answers with one logit a point (Dieleman et al. 2022, CDCD).
Sampling goes on with a point drawn from the answer, not with their mean.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unigen.errors import UsageError
from unigen.flow import RectifiedFlow

Latents = Float[Tensor, "b n c"]
Clock = Float[Tensor, "b n"]
Seen = Float[Tensor, "b n v"]


class Lens(nn.Module):
    """Latents as they are: seen as numbers, answered as the flow's prediction says."""

    guided = True  # whether guidance acts on the answers

    def __init__(self, width: int):
        """`width`: numbers that the denoiser sees and answers for a token."""
        super().__init__()
        self.width = width

    def see(self, x_t: Latents, t: Clock, flow: RectifiedFlow) -> Seen:
        """Return what the denoiser sees of noisy latents."""
        return x_t

    def data(self, output: Seen, x_t: Latents, t: Clock, flow: RectifiedFlow) -> Latents:
        """Return the data that an output of the denoiser stands for, on average."""
        return flow.to_x(output, x_t, t)

    def draw(
        self, output: Seen, x_t: Latents, t: Clock, flow: RectifiedFlow, eps: Latents
    ) -> Latents:
        """Return what sampling goes on with: for numbers, the data on average."""
        return self.data(output, x_t, t, flow)

    def mass(self, t: Clock) -> Float[Tensor, ""]:
        """Return what a batch with these clocks counts beside others in a mean of their losses."""
        return torch.ones((), device=t.device) * t.numel()

    def loss(
        self, output: Seen, x: Latents, x_t: Latents, t: Clock, flow: RectifiedFlow
    ) -> Float[Tensor, ""]:
        """Return the flow loss: the squared error of the data, weighted by clock; 0 at clock 0."""
        error = (self.data(output, x_t, t, flow) - x).square().mean(-1)
        return (error * flow.loss_weight(t) * (t > 0)).mean()


class Points(Lens):
    """Latents that are known points of equal norm, a few side by side in a token.

    Guidance leaves them alone: pushed one by one, neighbors stop fitting together.
    """

    guided = False
    points: Tensor

    def __init__(self, points: Float[Tensor, "k d"], count: int, min_p: float = 0.0):
        """count: points in a token. min_p: points less likely than this share of the likeliest
        one are not believed (Nguyen et al. 2024, min-p).

        Raises UsageError for a share that is not from 0 to 1.
        """
        if not 0 <= min_p <= 1:
            raise UsageError(f"min_p={min_p} is not from 0 to 1; 0 believes every answer.")
        super().__init__(count * len(points))
        self.count, self.min_p = count, min_p
        self.register_buffer("points", points, persistent=False)

    def see(self, x_t: Latents, t: Clock, flow: RectifiedFlow) -> Seen:
        """Return the probability of every point behind the noise, all equally likely before.

        p(k | x_t) ~ exp(alpha x_t.e_k / sigma^2), times sqrt(k) for a useful scale. The noise is
        taken to be at least 0.05: clean latents are one point, not infinitely one.
        """
        sharpness = flow.alpha(t) / flow.sigma(t.clamp_min(0.05)).square()
        likely = self.fit(x_t) * sharpness[..., None, None]
        return likely.softmax(-1).flatten(-2) * len(self.points) ** 0.5

    def data(self, output: Seen, x_t: Latents, t: Clock, flow: RectifiedFlow) -> Latents:
        """Return the mean of the points under the answered probabilities."""
        return (self._likely(output) @ self.points).flatten(-2)

    def draw(
        self, output: Seen, x_t: Latents, t: Clock, flow: RectifiedFlow, eps: Latents
    ) -> Latents:
        """Return one point of the answered probabilities, the one at a quantile told by the noise.

        The quantile is Phi(eps_0), uniform for normal noise: the same noise draws the same point.
        """
        quantile = torch.special.ndtr(eps.unflatten(-1, (self.count, -1))[..., :1].double())
        below = self._likely(output).double().cumsum(-1) < quantile
        return self.points[below.sum(-1).clamp_max(len(self.points) - 1)].flatten(-2)

    def loss(
        self, output: Seen, x: Latents, x_t: Latents, t: Clock, flow: RectifiedFlow
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the points that are not at clock 0, in nats a point.

        A token counts as far as the one before it is settled, since only then will it be drawn;
        at least a little (1/32), so that the rest of the sequence teaches, too.
        """
        right = self.fit(x).argmax(-1)
        logits = rearrange(self._logits(output), "b n w k -> b k n w")
        error = F.cross_entropy(logits, right, reduction="none").mean(-1)
        return (error * self._weight(t)).sum() / self.mass(t)

    def mass(self, t: Clock) -> Float[Tensor, ""]:
        """Return the sum of the tokens' weights, at least 1."""
        return self._weight(t).sum().clamp_min(1)

    def fit(self, x: Latents) -> Float[Tensor, "b n w k"]:
        """Return the inner product with every point."""
        return x.float().unflatten(-1, (self.count, -1)) @ self.points.T

    def _weight(self, t: Clock) -> Clock:
        before = F.pad(t[:, :-1], (1, 0))
        return (t > 0) * (1 - 31 / 32 * before)

    def _likely(self, output: Seen) -> Float[Tensor, "b n w k"]:
        likely = self._logits(output).softmax(-1)
        likely = likely * (likely >= self.min_p * likely.amax(-1, keepdim=True))
        return likely / likely.sum(-1, keepdim=True)

    def _logits(self, output: Seen) -> Float[Tensor, "b n w k"]:
        return output.float().unflatten(-1, (self.count, -1))
