"""Training of encoders, and embedding of cells with them."""

from maskless.training.calibrate import calibrate
from maskless.training.embed import Embedded, embed_cells, embed_image
from maskless.training.lars import LARS
from maskless.training.loop import needed_margin_um, train_encoder
from maskless.training.losses import nt_xent

__all__ = [
    "LARS",
    "Embedded",
    "calibrate",
    "embed_cells",
    "embed_image",
    "needed_margin_um",
    "nt_xent",
    "train_encoder",
]
