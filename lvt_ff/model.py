"""The linear video transformer with feature fixation, a plain module that both libraries wrap.

Source: arXiv 2210.08164; defaults have a ViT's position embedding, not the authors' patch norm.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from timm.layers import calculate_drop_path_rates, to_2tuple
from timm.models import checkpoint
from timm.models._features import feature_take_indices  # timm has no public path to it
from torch import Tensor, nn

from lvt_ff.kernels import Kernel
from lvt_ff.layers import (
    BlockConfig,
    FramePatchEmbed,
    VideoBlock,
    VideoHead,
    init_weights,
    refit_embeddings,
)
from lvt_ff.utils.validation import check_at_least, check_choice, check_clip

__all__ = ["LinearVideoTransformer", "init_weights"]

torch.fx.wrap("check_clip")  # a leaf of tracing: it looks at sizes


class LinearVideoTransformer(nn.Module):
    """Clips (B, T, C, H, W) to class scores (B, K).

    Args:
        num_classes: number of classes, K; 0 leaves the classifier out.
        num_frames: frames of a clip, T.
        img_size: height and width of a frame in pixels, one number or (H, W).
        in_chans: input channels, C.
        patch_size: kernel size of the patch convolution, in pixels.
        patch_stride: stride of the patch convolution, in pixels.
        patch_padding: padding of the patch convolution, in pixels.
        patch_norm: LayerNorm after the patch convolution (the authors' model).
        pos_embed: learned spatial position embedding (a plain ViT's; the authors' model has none).
        embed_dim: channels of a token, D.
        depth: number of blocks.
        num_heads: A, which must divide D.
        mlp_ratio: hidden channels of the MLP over D.
        mlp_dwconv: 3×3 depthwise convolution in the MLP.
        attn_kernel: name in `lvt_ff.kernels.KERNELS`.
        kernel_options: keywords of the kernel's class.
        attn_pattern: "factorized" (time then space), "joint" (both at once) or "windowed" (space
            with temporal shift only).
        block_order: of "factorized": "time_first" (the authors' code) or "space_first" (the text).
        fixation: inputs of the gates: "qkv" (the paper's feature fixation), "qk", "own" (a
            gate's own features) or "none".
        fixation_shared: the same gate for queries and keys, or one for each.
        fixation_aggregate: how the inputs are put together: "concat", "add" or "mul".
        fixation_order: gates act "after" or "before" the shifts.
        fixation_bias: initial bias of the gates. At 0 they begin at one half, which linear kernels
            divide out again and softmax does not.
        spatial_shift: 0 (off), 1 (8 neighbours) or 2 (24 neighbours); not in "windowed".
        shift_border: what comes in at a frame's border: "authors" (as in their code: zeros or own
            values) or "zero".
        temporal_shift_div: 1/div of the channels come from each neighbouring frame; 0 is off.
        temporal_shift_segment: frames that exchange channels among each other; 0: all of a clip.
        local_concentration: L2ViT's branch of convolutions in every block.
        global_pool: "avg", "max" or "" (scores for every token).
        head_hidden: features of the head's hidden layer; 0 leaves it out.
        drop_rate: dropout on the normed tokens and before the classifier.
        attn_drop_rate: dropout on queries and keys.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown name, or sizes that do not fit together.
    """

    feature_dim = -1  # axis of the features in `forward_features`, where timm looks for it

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
        kernel_options: dict[str, Any] | None = None,
        attn_pattern: str = "factorized",
        block_order: str = "time_first",
        fixation: str = "qkv",
        fixation_shared: bool = True,
        fixation_aggregate: str = "concat",
        fixation_order: str = "after",
        fixation_bias: float = 0.0,
        spatial_shift: int = 1,
        shift_border: str = "authors",
        temporal_shift_div: int = 4,
        temporal_shift_segment: int = 0,
        local_concentration: bool = False,
        global_pool: str = "avg",
        head_hidden: int = 768,
        drop_rate: float = 0.5,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_at_least(
            1,
            num_frames=num_frames,
            depth=depth,
            num_heads=num_heads,
            in_chans=in_chans,
            patch_size=patch_size,
            patch_stride=patch_stride,
            embed_dim=embed_dim,
        )
        config = BlockConfig(
            mlp_ratio=mlp_ratio,
            mlp_dwconv=mlp_dwconv,
            attn_kernel=attn_kernel,
            kernel_options=kernel_options,
            attn_pattern=attn_pattern,
            block_order=block_order,
            fixation=fixation,
            fixation_shared=fixation_shared,
            fixation_aggregate=fixation_aggregate,
            fixation_order=fixation_order,
            fixation_bias=fixation_bias,
            spatial_shift=spatial_shift,
            shift_border=shift_border,
            temporal_shift_div=temporal_shift_div,
            temporal_shift_segment=temporal_shift_segment,
            local_concentration=local_concentration,
            attn_drop_rate=attn_drop_rate,
        )
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.in_chans = in_chans
        self.num_features = self.embed_dim = embed_dim
        self.grad_checkpointing = False
        self.checkpoint_func: Callable = checkpoint
        self.checkpoint_every = 1
        self.pretrained_report = None  # set by loading another model's weights
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=embed_dim, reduction=patch_stride)
            for i in range(depth)
        ]
        with torch.device(device) if device is not None else nullcontext():
            self.patch_embed = FramePatchEmbed(
                tuple(to_2tuple(img_size)),
                in_chans,
                embed_dim,
                patch=(patch_size, patch_stride, patch_padding),
                norm=patch_norm,
            )
            h, w = self.patch_embed.grid
            self.pos_embed = nn.Parameter(torch.empty(1, h * w, embed_dim)) if pos_embed else None
            self.temp_embed = nn.Parameter(torch.empty(1, num_frames, 1, embed_dim))
            self.blocks = nn.Sequential(
                *(
                    VideoBlock(embed_dim, num_heads, (num_frames, (h, w)), config, rate)
                    for rate in calculate_drop_path_rates(drop_path_rate, depth)
                )
            )
            self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
            self.head = VideoHead(embed_dim, head_hidden, num_classes, global_pool, drop_rate)
        for number, kernel in enumerate(m for m in self.modules() if isinstance(m, Kernel)):
            kernel.number = number
        self.to(dtype=dtype)
        self.init_weights()

    def init_weights(self) -> None:
        """Give all parameters and buffers their first values, also after `to_empty()`."""
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

    @property
    def head_hidden_size(self) -> int:
        """Features before the classifier, F."""
        return self.head.num_features

    def embed(self, x: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) to the tokens (B, T, N, D) that enter the first block.

        Raises:
            ValueError: another layout, frame count, size or channel count than the model was built
                for.
        """
        x = check_clip(x, self.num_frames, self.in_chans, self.img_size)
        x = self.patch_embed(x)  # (B, T, N, D)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        return x + self.temp_embed

    def forward_features(self, x: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) to normed tokens (B, T, N, D)."""
        x = self.embed(x)
        for number in range(len(self.blocks)):
            x = self.run_block(number, x)
        return self.norm(x)

    def run_block(self, number: int, x: Tensor) -> Tensor:
        """One block on tokens (B, T, N, D), recomputed in the backward pass where that is set."""
        block = self.blocks[number]
        if self.grad_checkpointing and number % self.checkpoint_every == 0:
            return self.checkpoint_func(block, x)
        return block(x)

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
        check_choice("output_fmt", output_fmt, ("NCHW", "NLC"))
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)
        x = self.embed(x)
        intermediates = []
        for i in range(max_index + 1 if stop_early else len(self.blocks)):
            x = self.run_block(i, x)
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
        """Drop blocks behind the last of `indices`, norm and head if asked; returns `indices`."""
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: max_index + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.head.remove()
            self.num_classes = 0
        return take_indices

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, num_frames: int | None = None
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
        for block in self.blocks:
            block.set_size(self.num_frames, self.grid)
        changes = refit_embeddings(self, old_grid)
        # For timm's config.json.
        size = dict(img_size=self.img_size, num_frames=self.num_frames)
        self._model_args = dict(getattr(self, "_model_args", {}), **size)
        self._traits = dict(getattr(self, "_traits", {}), img_size=self.img_size)
        return changes

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New, freshly initialised classifier; 0 removes it."""
        like = self.temp_embed
        with torch.device(like.device):
            self.head.reset(num_classes, global_pool)
        self.num_classes = num_classes
        self.head.fc.to(dtype=like.dtype).apply(init_weights)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def set_grad_checkpointing(
        self, enable: bool = True, every: int = 1, checkpoint_func: Callable = checkpoint
    ) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations.

        Args:
            enable: False keeps all of them.
            every: blocks 0, `every`, 2 · `every`, … are recomputed.
            checkpoint_func: called as `checkpoint_func(block, x)`, as torch's `checkpoint` is.
        """
        check_at_least(1, every=every)
        self.grad_checkpointing = enable
        self.checkpoint_every, self.checkpoint_func = every, checkpoint_func

    def set_fused_attn(self, enable: bool = True) -> None:
        """Use fused operators where there are some, or the plain torch of the modules."""
        for module in self.modules():
            if hasattr(module, "use_fused"):
                module.use_fused = enable

    def group_matcher(self, coarse: bool = False) -> dict:
        """Patterns that order parameters from stem to head, for layer-wise learning rates."""
        return dict(
            stem=r"^patch_embed|^pos_embed|^temp_embed",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        )

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone."""
        names = {"pos_embed", "temp_embed"}
        for place, module in self.named_modules():
            if isinstance(module, Kernel):
                names |= {f"{place}.{name}" for name in module.no_weight_decay}
        return names
