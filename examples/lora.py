"""Train adapters on every linear layer with PEFT: python examples/lora.py videos/train"""

import argparse

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

from lvt_ff.data import Augmentation, TrainDataset, TrainTransform, collate, load_video_list
from lvt_ff.hub.model_folder import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", help="folder with one subfolder per class")
    parser.add_argument(
        "--model", default="lvt_ff_s.fb_in22k_ft_in1k", help="variant, folder or ORG/NAME"
    )
    parser.add_argument("--output", default="adapters")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    videos = load_video_list(args.videos)
    model, processor, start = build_model(args.model, videos.class_names)
    print(f"start: {start}")
    # The classifier is new: it trains whole.
    model = get_peft_model(
        model, LoraConfig(r=8, target_modules="all-linear", modules_to_save=["head"])
    )
    model.print_trainable_parameters()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()

    like = processor.eval_transform()
    augment = TrainTransform(like, Augmentation(scale_jitter=(1.14, 1.43)))
    clips = TrainDataset(videos, augment, **processor.clip_options(), seed=0, decoder="auto")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(args.epochs):
        order = torch.randperm(len(clips)).tolist()
        sampler = [(epoch, index) for index in order]
        for batch in DataLoader(clips, batch_size=4, sampler=sampler, collate_fn=collate):
            labels = torch.tensor(batch["label"], device=device)
            pixels = like.normalize(batch["clip"].to(device))
            loss = model(pixel_values_videos=pixels, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    model.save_pretrained(args.output)
    # A model of its own, which `lvt-ff predict --model` and all loaders take.
    merged = f"{args.output}_merged"
    model.merge_and_unload().save_pretrained(merged)
    processor.save_pretrained(merged)


if __name__ == "__main__":
    main()
