"""Image and video models of other libraries with random weights: real names, real shapes."""

import timm
import torch


def fill(model, seed=0):
    """Random values for every parameter, layer scale and norms among them, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
            elif name.endswith("gamma"):
                parameter.mul_(0.1).add_(0.5)
    return model.eval()


def timm_model(name, **options):
    """A timm image model with random weights; `name` may have a tag, whose classes it takes."""
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    return fill(model.to_empty(device="cpu"))


def small_vit(**options):
    """A ViT of the sizes of `test_lvt_ff`."""
    sizes = dict(img_size=64, patch_size=16, embed_dim=64, depth=3, num_heads=4, num_classes=10)
    return fill(timm.models.VisionTransformer(**{**sizes, **options}))


EXACT = dict(attn_kernel="softmax", fixation="none", spatial_shift=0, temporal_shift_div=0)


def tokens_without_extras(model, images):
    """Normed patch tokens of a timm ViT whose class and register tokens never existed."""
    x = model.patch_embed(images)
    if model.pos_embed is not None:
        extra = model.pos_embed.shape[1] - x.shape[1]
        x = x + model.pos_embed[:, extra:]
    for block in model.blocks:
        x = block(x)
    return model.norm(x)
