"""A tiny cohort and settings that train in well under a second; also run as a process."""

import signal
import sys
import time
from pathlib import Path

import numpy as np

from maskless.cells.atlas import Atlas
from maskless.config import EncoderSettings, TrainSettings
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.training import needed_margin_um, train_encoder

PANEL = Panel((Channel("CD3"), Channel("Xe", kind="background", used=False), Channel("CD20")))
ENCODER = EncoderSettings(width=2, blocks=(1,), embedding=8)
TRAIN = TrainSettings(
    view_um=(12.0, 12.0, 12.0),
    steps=8,
    cells_per_step=6,
    warmup_steps=2,
    checkpoint_seconds=1e-6,
)


def image_set():
    rng = np.random.default_rng(0)
    images = [
        Image(name, rng.random((3, *shape), dtype=np.float32), PANEL.names, 1.0)
        for name, shape in (("one", (40, 30)), ("two", (25, 50)))
    ]
    return ImageSet.from_images(images, PANEL)


def some_cells(n=20):
    rng = np.random.default_rng(1)
    index = rng.integers(0, 2, n)
    return index, rng.random((n, 2)) * np.array([[39, 29], [24, 49]])[index]


def train(settings=TRAIN, encoder=ENCODER, seed=3, cells=None, **options):
    atlas = Atlas.build(image_set(), settings.pixel_um, needed_margin_um(settings, 12.0))
    index, centres = cells or some_cells()
    return train_encoder(
        atlas, index, centres, encoder, settings, seed, embed_view_um=12.0, **options
    )


if __name__ == "__main__":
    # Trains slowly and says so after each step, to be stopped from outside. Processes started in
    # the background of a shell ignore SIGINT; this one is not to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(record):
        print(record["step"], flush=True)
        time.sleep(0.2)

    slow = TRAIN.model_copy(update={"checkpoint_seconds": float(sys.argv[2])})
    train(slow, checkpoint=Path(sys.argv[1]), on_step=tell)
