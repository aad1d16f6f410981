"""A converted image model learns a task of appearance in a fraction of a fresh one's steps.

`python tests/weights/test_transfer.py` prints the steps of both for three seeds.
"""

import pytest
import timm
import torch
import torch.nn.functional as F

import lvt_ff
from lvt_ff.weights import vit_to_video

SIDE, PATCH, NUM_CLASSES, NUM_FRAMES = 48, 8, 8, 2
FAMILIES = dict(img_size=SIDE, num_classes=NUM_CLASSES, patch_size=PATCH)


def stripes(number, seed):
    """Stripes of four directions and two widths, any phase and colours, under noise: the images
    (number, 3, 48, 48) and their classes."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(number, *shape, generator=random)

    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    classes = torch.randint(NUM_CLASSES, (number,), generator=random)
    angle = (classes % 4)[:, None, None] * torch.pi / 4 + 0.15 * normal(1, 1)
    width = torch.where(classes < 4, 6.0, 11.0)[:, None, None]
    phase = 2 * torch.pi * torch.rand(number, 1, 1, generator=random)
    wave = torch.sin(2 * torch.pi / width * (x * angle.cos() + y * angle.sin()) + phase)
    colour = F.normalize(normal(3, 1, 1), dim=1)
    ground = 0.5 * normal(3, 1, 1)
    return ground + wave[:, None] * colour + normal(3, SIDE, SIDE), classes


HELD_OUT = stripes(400, seed=10**6)


def static_clips(images):
    return images[:, None].expand(-1, NUM_FRAMES, -1, -1, -1)


def accuracy(model, prepare):
    model.eval()
    with torch.no_grad():
        best = torch.cat([model(prepare(part)).argmax(-1) for part in HELD_OUT[0].split(100)])
    return (best == HELD_OUT[1]).float().mean().item()


def train(model, prepare, seed, batch_size, max_steps, every, wanted):
    """Train until the held-out accuracy is `wanted`; the steps taken and the accuracy reached."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for step in range(1, max_steps + 1):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, step / 20)
        images, classes = stripes(batch_size, seed=1000 * seed + step)
        loss = F.cross_entropy(model.train()(prepare(images)), classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 or step == max_steps:
            reached = accuracy(model, prepare)
            if reached >= wanted:
                break
    return step, reached


def image_model(seed):
    torch.manual_seed(seed)
    sizes = dict(embed_dim=64, depth=3, num_heads=4, init_values=0.1)
    pooled = dict(class_token=False, global_pool="avg", fc_norm=False)
    model = timm.models.VisionTransformer(**FAMILIES, **sizes, **pooled)
    _, reached = train(model, lambda x: x, seed, 64, max_steps=600, every=50, wanted=0.93)
    return model, reached


def video_model(seed):
    torch.manual_seed(seed)
    stem = dict(patch_stride=PATCH, patch_padding=0, num_frames=NUM_FRAMES, drop_rate=0.0)
    return timm.create_model("test_lvt_ff", **FAMILIES, **stem)


def steps_of_a_conversion(source, wanted, seed):
    model = video_model(seed)
    model.load_state_dict(vit_to_video(source.state_dict(), model)[0])
    return train(model, static_clips, seed + 50, 32, max_steps=100, every=5, wanted=wanted)


@pytest.fixture(scope="module")
def trained_image_model():
    return image_model(seed=0)


def test_a_conversion_needs_at_most_a_fifth_of_the_steps_of_a_fresh_model(trained_image_model):
    source, wanted = trained_image_model
    assert wanted >= 0.9
    steps, reached = steps_of_a_conversion(source, wanted, seed=0)
    assert reached >= wanted
    fewer = 5 * steps - 1
    _, fresh = train(video_model(0), static_clips, 50, 32, fewer, every=20, wanted=wanted)
    assert fresh < wanted


if __name__ == "__main__":
    print(lvt_ff.__version__, torch.__version__, timm.__version__)
    for seed in range(3):
        source, wanted = image_model(seed)
        print(f"seed {seed}: image model {wanted:.2%} on single frames", flush=True)
        print("  converted:", steps_of_a_conversion(source, wanted, seed), flush=True)
        fresh = train(video_model(seed), static_clips, seed + 50, 32, 2000, 20, wanted)
        print("  fresh:", fresh, flush=True)
