"""A plain loop around a timm model: python examples/timm_loop.py videos/train"""

import argparse

import timm
import torch
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import DataLoader

import lvt_ff
from lvt_ff.data import Augmentation, TrainDataset, TrainTransform, collate, load_video_list


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", help="folder with one subfolder per class")
    parser.add_argument("--model", default="lvt_ff_s.fb_in22k_ft_in1k", help="variant and its tag")
    parser.add_argument("--from_scratch", action="store_true", help="from random weights")
    parser.add_argument("--output", default="trained_with_timm")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    videos = load_video_list(args.videos)
    model = timm.create_model(
        args.model, pretrained=not args.from_scratch, num_classes=len(videos.class_names)
    )
    config = lvt_ff.LVTFFConfig.from_variant(args.model)
    processor = lvt_ff.LVTFFVideoProcessor.from_config(config)
    like = processor.eval_transform()
    augment = TrainTransform(like, Augmentation(scale_jitter=(1.14, 1.43)))
    clips = TrainDataset(videos, augment, **processor.clip_options(), seed=0, decoder="auto")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-4, layer_decay=0.8)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        order = torch.randperm(len(clips)).tolist()
        sampler = [(epoch, index) for index in order]
        for batch in DataLoader(clips, batch_size=4, sampler=sampler, collate_fn=collate):
            labels = torch.tensor(batch["label"], device=device)
            pixels = like.normalize(batch["clip"].to(device))
            loss = criterion(model(pixels), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    names = dict(label_names=list(videos.class_names))
    save_for_hf(model, args.output, model_config=names, safe_serialization=True)


if __name__ == "__main__":
    main()
