"""Which rule each operation follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_leaves

from lcprune.tracing import (
    _attending,
    _bilinear,
    _complex,
    _contracting,
    _cutting,
    _joining,
    _moving,
    _normalising,
    _reducing,
    _shaping,
    _unfolding,
)
from lcprune.tracing._call import Call, Rule
from lcprune.tracing._pointwise import is_pointwise, pointwise

aten = torch.ops.aten


def _named(*names: str) -> list[Any]:
    return [packet for name in names if (packet := getattr(aten, name, None)) is not None]


RULES: dict[Any, Rule] = {
    **dict.fromkeys(_moving.SAME, _moving.same),
    **dict.fromkeys(_shaping.RESHAPES, _shaping.reshape),
    **dict.fromkeys(_moving.MOVES, _moving.move),
    **dict.fromkeys(_cutting.CUTS, _cutting.cut),
    **dict.fromkeys(_named("channel_shuffle", "native_channel_shuffle"), _moving.channel_shuffle),
    **dict.fromkeys(_named("pixel_shuffle"), _moving.pixel_shuffle),
    **dict.fromkeys(
        _named("squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_"), _moving.in_place
    ),
    **dict.fromkeys(_shaping.CREATIONS, _shaping.create),
    **dict.fromkeys(_named("expand"), _shaping.expand),
    **dict.fromkeys(_named("cat", "stack"), _joining.concatenate),
    **dict.fromkeys(_named("constant_pad_nd"), _joining.pad),
    **dict.fromkeys(_named("as_strided", "as_strided_"), _moving.restride),
    **dict.fromkeys(
        _named("convolution", "_convolution", "convolution_overrideable"),
        _contracting.convolution,
    ),
    **dict.fromkeys(_named("mm", "addmm"), _contracting.matrix_product),
    **dict.fromkeys(_named("bmm", "baddbmm"), _contracting.batched_matrix_product),
    **dict.fromkeys(
        _named("_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu"),
        _attending.attention,
    ),
    **dict.fromkeys(_named("_trilinear"), _bilinear.trilinear),
    **dict.fromkeys(_named("_cdist_forward"), _bilinear.distances),
    **dict.fromkeys(_named("embedding"), _contracting.embedding),
    **dict.fromkeys(_named("_fft_r2c", "_fft_c2r", "_fft_c2c"), _complex.transform),
    **dict.fromkeys(_named("view_as_complex"), _complex.pair_as_number),
    **dict.fromkeys(_named("view_as_real"), _complex.number_as_pair),
    **dict.fromkeys(_named("max_unpool2d", "max_unpool3d"), _reducing.unpool),
    **dict.fromkeys(_named("_embedding_bag", "_embedding_bag_forward_only"), _unfolding.bag),
    **dict.fromkeys(_named("im2col"), _unfolding.unfold),
    **dict.fromkeys(_named("col2im"), _unfolding.fold),
    **dict.fromkeys(_named("index", "index_select"), _unfolding.pick),
    **dict.fromkeys(_named("gather"), _unfolding.gather),
    **dict.fromkeys(
        _named(
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ),
        _normalising.batch_norm,
    ),
    **dict.fromkeys(_named("native_layer_norm"), _normalising.layer_norm),
    **dict.fromkeys(_named("native_group_norm"), _normalising.group_norm),
    **dict.fromkeys(_reducing.REDUCTIONS, _reducing.reduction),
    **dict.fromkeys(_reducing.OVER_ONE_DIM, _reducing.over_one_dim),
    **dict.fromkeys(_reducing.SOFTMAXES, _reducing.softmax),
    **dict.fromkeys(_named("glu"), _reducing.glu),
    **dict.fromkeys(
        _named(
            *(f"{kind}_pool{n}d" for kind in ("max", "avg", "lp") for n in (1, 2, 3)),
            *(f"max_pool{n}d_with_indices" for n in (2, 3)),
            *(
                f"{p}adaptive_{kind}_pool{n}d"
                for p in ("", "_")
                for kind in ("max", "avg")
                for n in (1, 2, 3)
            ),
            *(
                f"upsample_{mode}"
                for mode in (
                    "nearest1d",
                    "nearest2d",
                    "nearest3d",
                    "_nearest_exact1d",
                    "_nearest_exact2d",
                    "linear1d",
                    "bilinear2d",
                    "bicubic2d",
                    "trilinear3d",
                )
            ),
            *(
                f"_upsample_{mode}"
                for mode in (
                    "nearest_exact1d",
                    "nearest_exact2d",
                    "nearest_exact3d",
                    "bilinear2d_aa",
                    "bicubic2d_aa",
                )
            ),
            *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
            "fractional_max_pool2d",
            "grid_sampler_2d",
        ),
        _reducing.windows,
    ),
}


def apply_rule(call: Call) -> Any:
    """Run an operation and move its labels; where no rule knows it, pin what touches it."""
    rule = RULES.get(call.func.overloadpacket)
    if rule is not None:
        return rule(call)
    if is_pointwise(call.func):
        return pointwise(call)
    labelled = [t for t in call.tensors() if call.flow.planes(t)]
    if not labelled:
        return call.run()
    decomposition = decomposition_table.get(call.func)
    if decomposition is not None:
        with call.flow:
            return decomposition(*call.args, **call.kwargs)
    with call.flow:
        composed = call.func.decompose(*call.args, **call.kwargs)
    if composed is not NotImplemented:
        return composed
    out = call.run()
    for tensor in labelled:
        for plane in call.flow.planes(tensor):
            call.flow.labels.pin(plane, f"no rule for {call.where}")
    call.flow.uncounted[call.name] = None
    mutated = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    for tensor in mutated:
        if call.flow.planes(tensor):
            call.flow.set(tensor, ())
    return out
