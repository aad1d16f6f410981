"""The linear video transformer with feature fixation: one plain torch module that both libraries
wrap.

Source: arXiv 2210.08164; defaults keep a ViT's position embedding and leave out the authors' patch
    norm.
"""

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from timm.layers import calculate_drop_path_rates, to_2tuple
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from lvt_ff.kernels import KERNELS
from lvt_ff.layers import (
    ATTN_PATTERNS,
    FIXATIONS,
    POOLS,
    SPATIAL_OFFSETS,
    DepthwiseConv,
    FramePatchEmbed,
    SpatialShift,
    VideoBlock,
    VideoHead,
    resample_embeddings,
    sincos_positions,
    sincos_times,
)

__all__ = ["LinearVideoTransformer", "init_weights"]


def init_weights(module: nn.Module) -> None:
    """First values of one module's own parameters; `model.apply(init_weights)` fills a model.

    Not the authors' constant 0.02 and zero time embedding: those start from ImageNet weights. From
    random weights, matrices scaled by their inputs and embeddings that tell places and times apart
    from the first step on make the difference between learning and not (README, "From scratch").
    """
    if isinstance(module, DepthwiseConv):
        nn.init.dirac_(module.weight, groups=module.groups)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, LinearVideoTransformer):
        _fill(module.temp_embed, sincos_times(module.num_frames, module.embed_dim)[:, None])
        if module.pos_embed is not None:
            _fill(module.pos_embed, sincos_positions(module.grid, module.embed_dim))


@torch.no_grad()
def _fill(parameter: nn.Parameter, values: Tensor) -> None:
    # transformers marks what it has loaded; its own initialisers respect that mark too.
    if not getattr(parameter, "_is_hf_initialized", False):
        parameter.copy_(values)


@torch.fx.wrap
def _check_clip(x: Tensor, num_frames: int, in_chans: int, img_size: tuple[int, int]) -> Tensor:
    got = tuple(x.shape)
    want = (num_frames, in_chans, *img_size)
    if len(got) != 5:
        raise ValueError(
            f"Expected a clip batch (B, T, C, H, W) = (B, {', '.join(map(str, want))}), "
            f"got {len(got)} dimensions {got}: stack frames in dimension 1; one image is T = 1."
        )
    if got[1:] == want:
        if not x.is_floating_point():
            raise ValueError(
                f"Expected normalised floating-point pixels, got {x.dtype}: use the video "
                "processor or lvt_ff.data.EvalTransform."
            )
        return x
    if got[2] != in_chans and got[1] == in_chans:
        raise ValueError(
            f"Expected (B, T, C, H, W) with {in_chans} channels in dimension 2, got {got}, "
            "which looks like (B, C, T, H, W): use clip.transpose(1, 2)."
        )
    if got[2] != in_chans:
        raise ValueError(
            f"Expected {in_chans} channels in dimension 2 of (B, T, C, H, W), got {got}: "
            f"build the model with in_chans={got[2]}."
        )
    raise ValueError(
        f"Expected {num_frames} frames of {img_size[0]}×{img_size[1]} pixels, got {got[1]} of "
        f"{got[3]}×{got[4]}: pass num_frames={got[1]}, img_size=({got[3]}, {got[4]}) to "
        "create_model (embeddings are resampled when weights are loaded)."
    )


def _check_choice(name: str, value: object, choices: Iterable) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}.")


class LinearVideoTransformer(nn.Module):
    """Clips (B, T, C, H, W) to class scores (B, K).

    Args:
        num_classes: K; 0 leaves the classifier out.
        num_frames: T.
        img_size: pixels, one number or (H, W).
        in_chans: C.
        patch_size, patch_stride, patch_padding: of the patch convolution, in pixels.
        patch_norm: LayerNorm after the patch convolution (the authors' model).
        pos_embed: learned spatial position embedding (a plain ViT's; the authors' model has none).
        embed_dim, depth, num_heads: D, blocks, A; A must divide D.
        mlp_ratio: hidden channels of the MLP over D.
        mlp_dwconv: 3×3 depthwise convolution in the MLP.
        attn_kernel: name in `lvt_ff.kernels.KERNELS`.
        attn_pattern: "factorized" (time then space), "joint" (both at once) or "windowed" (space
            with temporal shift only).
        fixation: "qkv" (the paper's feature fixation) or "none".
        fixation_shared: one ratio for queries and keys, or one for each.
        spatial_shift: 0 (off), 1 (8 neighbours) or 2 (24 neighbours).
        temporal_shift_div: 1/div of the channels comes from the next frame, as many from the
            previous one; 0 is off.
        global_pool: "avg", "max" or "" (scores for every token).
        head_hidden: features of the head's hidden layer; 0 leaves it out.
        drop_rate: dropout on the normed tokens and before the classifier.
        attn_drop_rate: dropout on queries and keys.
        drop_path_rate: stochastic depth at the last block, rising linearly from 0 at the first.
        device, dtype: of the parameters.

    Raises:
        ValueError: an unknown name, or sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        num_frames: int = 16,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        patch_size: int = 16,
        patch_stride: int = 14,
        patch_padding: int = 8,
        patch_norm: bool = False,
        pos_embed: bool = True,
        embed_dim: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        mlp_dwconv: bool = True,
        attn_kernel: str = "relu",
        attn_pattern: str = "factorized",
        fixation: str = "qkv",
        fixation_shared: bool = True,
        spatial_shift: int = 1,
        temporal_shift_div: int = 4,
        global_pool: str = "avg",
        head_hidden: int = 768,
        drop_rate: float = 0.5,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        _check_choice("attn_kernel", attn_kernel, KERNELS)
        _check_choice("attn_pattern", attn_pattern, ATTN_PATTERNS)
        _check_choice("fixation", fixation, FIXATIONS)
        _check_choice("spatial_shift", spatial_shift, SPATIAL_OFFSETS)
        _check_choice("global_pool", global_pool, POOLS)
        for name, value in (("num_frames", num_frames), ("depth", depth), ("in_chans", in_chans)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if embed_dim % num_heads:
            raise ValueError(
                f"num_heads must divide embed_dim, got {num_heads} heads for {embed_dim} channels."
            )
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.in_chans = in_chans
        self.num_features = self.embed_dim = embed_dim
        self.head_hidden_size = head_hidden or embed_dim
        self.grad_checkpointing = False
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=embed_dim, reduction=patch_stride)
            for i in range(depth)
        ]
        with torch.device(device) if device is not None else nullcontext():
            self.patch_embed = FramePatchEmbed(
                tuple(to_2tuple(img_size)),
                in_chans,
                embed_dim,
                patch_size,
                patch_stride,
                patch_padding,
                patch_norm,
            )
            h, w = self.patch_embed.grid
            self.pos_embed = nn.Parameter(torch.empty(1, h * w, embed_dim)) if pos_embed else None
            self.temp_embed = nn.Parameter(torch.empty(1, num_frames, 1, embed_dim))
            self.blocks = nn.Sequential(
                *(
                    VideoBlock(
                        embed_dim,
                        num_heads,
                        (h, w),
                        mlp_ratio=mlp_ratio,
                        mlp_dwconv=mlp_dwconv,
                        attn_pattern=attn_pattern,
                        spatial_shift=spatial_shift,
                        temporal_shift_div=temporal_shift_div,
                        drop_path_rate=block_drop_path_rate,
                        attn_kernel=attn_kernel,
                        fixation=fixation,
                        fixation_shared=fixation_shared,
                        attn_drop_rate=attn_drop_rate,
                    )
                    for block_drop_path_rate in calculate_drop_path_rates(drop_path_rate, depth)
                )
            )
            self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
            self.head = VideoHead(embed_dim, head_hidden, num_classes, global_pool, drop_rate)
        self.to(dtype=dtype)
        self.apply(init_weights)

    @property
    def img_size(self) -> tuple[int, int]:
        """Pixels (H, W) of a frame."""
        return self.patch_embed.img_size

    @property
    def grid(self) -> tuple[int, int]:
        """Token grid (h, w) of a frame."""
        return self.patch_embed.grid

    @property
    def global_pool(self) -> str:
        """Pooling of the head."""
        return self.head.global_pool

    def embed(self, x: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) to the tokens (B, T, N, D) that enter the first block.

        Raises:
            ValueError: another layout, frame count, size or channel count than the model was built
                for.
        """
        x = _check_clip(x, self.num_frames, self.in_chans, self.img_size)
        x = self.patch_embed(x)  # (B, T, N, D)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        return x + self.temp_embed

    def forward_features(self, x: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) to normed tokens (B, T, N, D)."""
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x) if self.grad_checkpointing else block(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Normed tokens (B, T, N, D) to scores (B, K), or to the features before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) to scores (B, K)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of chosen blocks, as timm's models give them.

        Args:
            x: clips (B, T, C, H, W).
            indices: the last n blocks, or block numbers; None takes all.
            norm: apply the final norm to each.
            stop_early: leave out the blocks behind the last one asked for.
            output_fmt: "NCHW" for (B, D, T, h, w), "NLC" for (B, T·N, D).
            intermediates_only: without the normed tokens (B, T, N, D).
        """
        output_fmt = str(getattr(output_fmt, "value", output_fmt))  # timm passes an enum
        _check_choice("output_fmt", output_fmt, ("NCHW", "NLC"))
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)
        x = self.embed(x)
        intermediates = []
        for i, block in enumerate(self.blocks[: max_index + 1] if stop_early else self.blocks):
            x = checkpoint(block, x) if self.grad_checkpointing else block(x)
            if i in take_indices:
                tokens = self.norm(x) if norm else x
                if output_fmt == "NCHW":
                    intermediates.append(tokens.unflatten(2, self.grid).permute(0, 4, 1, 2, 3))
                else:
                    intermediates.append(tokens.flatten(1, 2))
        return intermediates if intermediates_only else (self.norm(x), intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks behind the last of `indices`, and the norm and head if asked; returns
        the indices."""
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: max_index + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.head = nn.Identity()
        return take_indices

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        num_frames: int | None = None,
    ) -> list[str]:
        """Resample the embeddings to another clip size.

        Args:
            img_size: pixels, one number or (H, W); None keeps them.
            num_frames: T; None keeps it.

        Returns:
            A line for each embedding that was resampled.
        """
        old_grid = self.grid
        self.num_frames = num_frames or self.num_frames
        self.patch_embed.set_img_size(to_2tuple(img_size or self.img_size))
        for module in self.modules():
            if isinstance(module, SpatialShift | DepthwiseConv):
                module.grid = self.grid
        resampled, changes = resample_embeddings(
            self.state_dict(), self.num_frames, self.grid, old_grid
        )
        for name in ("temp_embed", "pos_embed"):
            if name in resampled:
                old = getattr(self, name)
                setattr(self, name, nn.Parameter(resampled[name], requires_grad=old.requires_grad))
        return changes

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New, freshly initialised classifier; 0 removes it."""
        weight = self.head.norm.weight
        with torch.device(weight.device):
            self.head.reset(num_classes, global_pool)
        self.num_classes = num_classes
        self.head.fc.to(dtype=weight.dtype).apply(init_weights)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict:
        """Patterns that order parameters from stem to head, for layer-wise learning rates."""
        return dict(
            stem=r"^patch_embed|^pos_embed|^temp_embed",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        )

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone."""
        return {"pos_embed", "temp_embed"}
