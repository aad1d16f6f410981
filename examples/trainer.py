"""Fine-tune with transformers' Trainer: python examples/trainer.py videos/train"""

import argparse

from transformers import Trainer, TrainingArguments

from lvt_ff.data import Augmentation, TrainDataset, TrainTransform, load_video_list
from lvt_ff.hub.model_folder import build_model


class Clips(TrainDataset):
    """Items as Trainer takes them; it asks for numbers, and sets the epoch before each one."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__((self.epoch, index))
        pixels = self.transform.like.normalize(item["clip"])
        return dict(pixel_values_videos=pixels, labels=item["label"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", help="folder with one subfolder per class")
    parser.add_argument(
        "--model", default="lvt_ff_s.fb_in22k_ft_in1k", help="variant, folder or ORG/NAME"
    )
    parser.add_argument("--output", default="trained_with_trainer")
    parser.add_argument("--epochs", type=float, default=5)
    args = parser.parse_args()

    videos = load_video_list(args.videos)
    model, processor, start = build_model(args.model, videos.class_names)
    print(f"start: {start}")
    augmentation = Augmentation(scale_jitter=(1.14, 1.43))
    augment = TrainTransform(processor.eval_transform(), augmentation)
    clips = Clips(videos, augment, **processor.clip_options(), seed=0, decoder="auto")
    options = TrainingArguments(
        args.output,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        learning_rate=3e-4,
        report_to=[],
    )
    trainer = Trainer(model, options, train_dataset=clips, processing_class=processor)
    trainer.train()
    trainer.save_model(args.output)


if __name__ == "__main__":
    main()
