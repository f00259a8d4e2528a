"""UniDiffuser (Bao et al. 2023b): the published weights behind `generate(want, given)`."""

from unigen.interop.unidiffuser.folder import load_denoiser
from unigen.interop.unidiffuser.network import PublishedUViT
from unigen.interop.unidiffuser.pipeline import load

__all__ = ["PublishedUViT", "load", "load_denoiser"]
