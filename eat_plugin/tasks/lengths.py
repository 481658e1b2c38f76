"""What the tasks share about clips of different length: ``task.length``.

``pad``: clips are cut and padded to ``target_length``, as published.

``mask``: each clip keeps its own length, up to ``target_length``, and what it has alone it has in a
batch, whatever the padding there holds: losses, features, logits.

- A clip of n frames has ceil(n / patch) time steps of patches; the last one is filled up with
  ``pad_value``, and counts.
- Batches are of clips of similar length; ``dataset.max_tokens`` bounds their frames, padding
  included, and ``dataset.batch_size`` their clips. Their lengths come from the manifest and from
  the lowest sampling rate of a few clips: with rates that differ, batches are made as if all clips
  had that one.
- A mask hides its share of the clip's own patches. Loss and gradient are divided by the number of
  hidden patches of all clips. The utterance loss of a clip counts by its own number of hidden
  patches over the mean of its batch, so that its ratio to the clip's patch loss does not depend on
  the length of others; for clips alike this is what was published.
- The noise that stands for hidden patches is drawn for each clip from (seed, epoch, clip).
- What mixup makes of two clips is as long as the longer one; where only one of them has sound, that
  one counts in full. Masks of SpecAugment lie within the clip, their width relative to its length.
- A clip that takes the place of a damaged one is cut to that one's length.

``crop``: a random window in training; evaluation averages the probabilities of ``eval_windows``
windows, spread evenly from the start to the end of a clip. Short clips are padded.
"""

from typing import Any

from ..data.frontend import FrontEnd

LENGTHS = ("pad", "mask", "crop")
HELP = (
    "clips shorter or longer than target_length: pad (padded, as published, or cut as crop says); "
    "mask (each keeps its own length, up to target_length; nothing depends on padding; of a longer "
    "one training takes a random part and evaluation the start); or crop (padded; of a longer one "
    "training takes a random part; evaluation of a classifier averages eval_windows parts)"
)


def make_front_end(cfg: Any) -> FrontEnd:
    """Make the front end of sound, as a task's options say.

    Args:
        cfg: the task's options.

    Raises:
        ValueError: if an option cannot work, naming it, its value and the choices.
    """
    if cfg.length not in LENGTHS:
        raise ValueError(f"task.length is {cfg.length!r}; choose one of {', '.join(LENGTHS)}")
    if cfg.length != "pad" and cfg.images is not None:
        raise ValueError(
            f"task.length is {cfg.length}, which is for sound, but task.images is set; leave it at "
            "pad"
        )
    if getattr(cfg, "eval_windows", 1) < 1:
        raise ValueError(f"task.eval_windows is {cfg.eval_windows}; it must be 1 or more")
    patch = cfg.patch_size if cfg.length == "mask" else 0
    return FrontEnd(cfg.target_length, cfg.norm_mean, cfg.norm_std, cfg.pad_value, patch)


def choose_crop(cfg: Any, train: bool) -> str:
    """Return which part of a clip longer than the window is taken: ``start`` or ``random``."""
    if cfg.length == "pad":
        return str(cfg.crop)
    return "random" if train else "start"


def check_patches(model: Any, front_end: FrontEnd) -> None:
    """Compare the patches of a model with those that clips are brought to.

    Args:
        model: a pre-training model, or a classifier.
        front_end: of the task.

    Raises:
        ValueError: if they differ.
    """
    if not front_end.patch:
        return
    size = getattr(model, "model", model).patch_encoder.cfg.patch_size
    if front_end.patch != size:
        raise ValueError(
            f"task.patch_size is {front_end.patch}, but the model's patches have {size} frames; it "
            f"follows model.modalities.image.patch_size: set that to {size}"
        )
