"""First values of parameters."""

from torch import nn

from lvt_ff.kernels import Kernel
from lvt_ff.kernels.conv import TorchInit
from lvt_ff.layers.embeddings import init_embeddings
from lvt_ff.layers.mlp import DepthwiseConv

__all__ = ["init_weights"]


def init_weights(module: nn.Module) -> None:
    """First values of one module's own parameters; `model.apply(init_weights)` fills a model.

    Not the authors' constant 0.02 and zero time embedding: those start from ImageNet weights. From
    random weights, matrices scaled by their inputs and embeddings that tell places and times apart
    from the first step on learn sooner and end higher (docs/imagenet.md).
    """
    if isinstance(module, Kernel | TorchInit):
        module.init_weights()
    elif isinstance(module, DepthwiseConv):
        nn.init.dirac_(module.weight, groups=module.groups)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.constant_(module.bias, getattr(module, "first_bias", 0.0))
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d):
        for tensor in (module.weight, module.running_var):
            nn.init.ones_(tensor)
        for tensor in (module.bias, module.running_mean, module.num_batches_tracked):
            nn.init.zeros_(tensor)
    elif hasattr(module, "temp_embed"):  # the whole model's own parameters
        init_embeddings(module.temp_embed, module.pos_embed, module.grid)
