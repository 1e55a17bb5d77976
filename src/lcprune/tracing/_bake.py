"""Weights that are computed of other parameters become plain ones."""

from __future__ import annotations

from torch import Tensor, nn, no_grad
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from lcprune._text import described
from lcprune.errors import ModelError
from lcprune.tracing._run import private_copy


def bake(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose parametrised weights are ordinary parameters.

    Its ``state_dict`` has the keys of the plain modules (``conv.weight``), and it computes what
    ``model`` does in eval mode. Baked are ``torch.nn.utils.parametrize`` (``weight_norm``,
    ``spectral_norm``, ``orthogonal``, parametrisations of your own), the hooks of the older
    ``torch.nn.utils.weight_norm`` and ``spectral_norm``, and the masks of
    ``torch.nn.utils.prune``; ``model`` itself is untouched, and one without any comes back as an
    equal copy. Originals that two modules share become a parameter of each.

    Raises ``ModelError`` for a model that can't be copied, or a weight that can't be computed.
    """
    baked = private_copy(model)
    training = {module: module.training for module in baked.modules()}
    baked.eval()  # in training mode the norms of spectral_norm change whenever they are read
    for name, module in list(baked.named_modules()):
        try:
            with no_grad():
                _bake_hooks(module)
                _bake_parametrisations(module)
        except Exception as error:
            raise ModelError(
                f"the parametrised weights of {name or 'the model'} can't be computed: "
                f"{described(error)}"
            ) from error
    for module in baked.modules():
        module.training = training[module]
    return baked


def _bake_parametrisations(module: nn.Module) -> None:
    if not parametrize.is_parametrized(module):
        return
    # remove_parametrizations takes the weight out of the class, which the model's own module has
    # too; and where there is one original, it writes the value into whoever shares it.
    originals = {
        name: list(parametrisations.parameters(recurse=False))
        for name, parametrisations in module.get_submodule("parametrizations").named_children()
    }
    values = {name: getattr(module, name).detach().clone() for name in originals}
    plain = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain
    for name, value in values.items():
        if originals[name]:
            trained = any(original.requires_grad for original in originals[name])
            module.register_parameter(name, nn.Parameter(value, requires_grad=trained))
        else:
            module.register_buffer(name, value)


def _bake_hooks(module: nn.Module) -> None:
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            trained = _trained(module, f"{hook.name}_g", f"{hook.name}_v")
            remove_weight_norm(module, hook.name)
            getattr(module, hook.name).requires_grad_(trained)
        elif isinstance(hook, SpectralNorm):
            trained = _trained(module, f"{hook.name}_orig")
            remove_spectral_norm(module, hook.name)
            getattr(module, hook.name).requires_grad_(trained)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]


def _trained(module: nn.Module, *names: str) -> bool:
    tensors: list[Tensor] = [getattr(module, name) for name in names]
    return any(tensor.requires_grad for tensor in tensors)
