"""Fused attention, taken apart into its matrix products and its softmax."""

from __future__ import annotations

from typing import Any

import torch

from lcprune.tracing._call import Call

aten = torch.ops.aten


def attention(call: Call) -> Any:
    """Softmax of queries times keys, times values."""
    query, key, value = call.args[:3]
    options = {
        name: call.argument(position, name, default)
        for position, name, default in _options(call.func.overloadpacket)
    }
    with call.flow:
        return aten._scaled_dot_product_attention_math.default.decompose(
            query,
            key,
            value,
            options["attn_mask"],
            options["dropout_p"],
            options["is_causal"],
            **{name: call.kwargs[name] for name in ("scale", "enable_gqa") if name in call.kwargs},
        )


def _options(packet: Any) -> tuple[tuple[int, str, Any], ...]:
    """Position, name and default of what follows query, key and value."""
    if packet is aten._scaled_dot_product_attention_math:
        return ((3, "attn_mask", None), (4, "dropout_p", 0.0), (5, "is_causal", False))
    return ((99, "attn_mask", None), (3, "dropout_p", 0.0), (4, "is_causal", False))
