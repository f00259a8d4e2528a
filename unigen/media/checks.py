"""Test what a file declares against the limits (in the worker only)."""

from unigen.media import limits
from unigen.media.worker import Refused


def check_side(width: int, height: int) -> None:
    """Refuse a frame without pixels, or with more than the limit."""
    most = limits.VIDEO_SIDE
    if not (0 < width <= most and 0 < height <= most):
        raise Refused(f"its frames are {width}x{height}, the limit is {most}x{most}")


def check_length(seconds: float, most: float) -> None:
    """Refuse what says that it is longer than the limit."""
    if seconds > most:
        raise Refused(f"it says it is {seconds:.1f} s long, the limit is {most:g} s")


def check_sound(channels: int, rate: int) -> None:
    """Refuse a count of channels or a rate beyond the limits."""
    if not 1 <= channels <= limits.AUDIO_CHANNELS:
        raise Refused(f"it has {channels} channels, the limit is {limits.AUDIO_CHANNELS}")
    low, high = limits.AUDIO_RATES
    if not low <= rate <= high:
        raise Refused(f"its rate is {rate}, wanted {low} to {high} samples a second")
