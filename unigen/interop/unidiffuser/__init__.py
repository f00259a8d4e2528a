"""UniDiffuser (Bao et al. 2023b): the published denoiser, from the files it is spread in."""

from unigen.interop.unidiffuser.folder import load_denoiser
from unigen.interop.unidiffuser.network import PublishedUViT

__all__ = ["PublishedUViT", "load_denoiser"]
