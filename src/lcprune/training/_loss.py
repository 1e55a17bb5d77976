"""Cross-entropy and distillation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def distillation_loss(
    outputs: Tensor, targets: Tensor, taught: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Mix the labels' loss with the divergence from a teacher's outputs.

    ``outputs`` and ``taught`` are logits (N, classes), ``targets`` int64 (N,). Returns
    (1 - alpha) CE(outputs, targets) + alpha T^2 KL(softmax(taught / T) || softmax(outputs / T)),
    the mean over the batch. Source: Hinton et al. (2015), section 2; T^2 keeps the gradients'
    size while T changes.
    """
    hard = functional.cross_entropy(outputs, targets)
    soft = functional.kl_div(
        functional.log_softmax(outputs / temperature, dim=1),
        functional.log_softmax(taught / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft
