"""Cross-entropy and distillation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lcprune.training._mixup import Labels


def labels_loss(outputs: Tensor, labels: Labels, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (N, classes, …) with labels that may be mixed."""
    loss = functional.cross_entropy(outputs, labels.targets, label_smoothing=smoothing)
    if labels.others is None:
        return loss
    other = functional.cross_entropy(outputs, labels.others, label_smoothing=smoothing)
    return labels.share * loss + (1 - labels.share) * other


def teachers_loss(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL(softmax(taught / T) || softmax(outputs / T)), the mean over the batch."""
    return functional.kl_div(
        functional.log_softmax(outputs / temperature, dim=1),
        functional.log_softmax(taught / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def distillation_loss(
    outputs: Tensor, targets: Tensor, taught: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Mix the labels' loss with the divergence from a teacher's outputs.

    ``outputs`` and ``taught`` are logits (N, classes), ``targets`` int64 (N,). Returns
    (1 - alpha) CE(outputs, targets) + alpha T^2 KL(softmax(taught / T) || softmax(outputs / T)),
    the mean over the batch. Source: Hinton et al. (2015), section 2; T^2 keeps the gradients'
    size while T changes.
    """
    hard = labels_loss(outputs, Labels(targets))
    return (1 - alpha) * hard + alpha * temperature**2 * teachers_loss(outputs, taught, temperature)
