"""Where bfloat16 pays: on devices that multiply it themselves. Others only emulate it."""

import torch


def native(device: torch.device | str) -> bool:
    """Return whether a device multiplies bfloat16 itself, and does not emulate it.

    A processor does with AVX512-BF16, AMX or Arm's BF16; without them its products in bfloat16
    take some 80 times as long as in float32 (LOG.md).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return kind != "cpu" or any(have and "bf16" in name for name, have in able.items())


def fastest(device: torch.device | str) -> torch.dtype:
    """Return the narrowest type that a device multiplies itself: bfloat16 or float32."""
    return torch.bfloat16 if native(device) else torch.float32


def autocast(device: torch.device | str, bf16: bool | None = None) -> torch.autocast:
    """Return the context in which products are bfloat16; None: where the device is native."""
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=native(device) if bf16 is None else bf16
    )
