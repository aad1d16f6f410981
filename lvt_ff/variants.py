"""The model family: one row of constructor keywords per name.

Source: arXiv 2210.08164, Table 7 (the paper's four); four match timm's `vit_*_patch16_224`.
"""

__all__ = ["VARIANTS"]

_PAPER = dict(embed_dim=512, depth=12, num_heads=8, patch_stride=14, patch_padding=8)
_VIT = dict(num_frames=16, img_size=224, patch_stride=16, patch_padding=0)

VARIANTS: dict[str, dict] = {
    "lvt_ff_s": dict(num_frames=8, img_size=224, **_PAPER),
    "lvt_ff_default": dict(num_frames=16, img_size=224, **_PAPER),
    "lvt_ff_h": dict(num_frames=32, img_size=224, **_PAPER),
    "lvt_ff_hr": dict(num_frames=16, img_size=336, **_PAPER),
    "lvt_ff_tiny": dict(embed_dim=192, depth=12, num_heads=3, **_VIT),
    "lvt_ff_small": dict(embed_dim=384, depth=12, num_heads=6, **_VIT),
    "lvt_ff_base": dict(embed_dim=768, depth=12, num_heads=12, **_VIT),
    "lvt_ff_large": dict(embed_dim=1024, depth=24, num_heads=16, **_VIT),
    "test_lvt_ff": dict(_PAPER, embed_dim=64, depth=3, num_heads=4, num_frames=4, img_size=64),
}
