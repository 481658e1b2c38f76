"""A clip of a pre-training run: its spectrogram, masks, and the prediction of hidden patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..inference.loaded import Loaded

NUM_MASKS = 2
MOST_CLIPS = 20  # tried until one can be read


class Example(NamedTuple):
    """A clip as a model is trained on it.

    Attributes:
        name: in the manifest.
        spectrogram: normalised log-mel energies, float32 [T, F]; NaN in padding.
        low_hz: outer edge of the lowest mel filter.
        masks: hidden patches, bool [masks, rows, columns] of the (time, mel) grid.
        reconstructions: the spectrogram with reconstructed hidden patches, [masks, T, F]; None
            without a reconstruction loss.
        agreements: cosines of predicted and target features, [masks, rows, columns], NaN at visible
            patches; None with a reconstruction loss, or without a decoder.
    """

    name: str
    spectrogram: np.ndarray
    low_hz: float
    masks: np.ndarray
    reconstructions: np.ndarray | None = None
    agreements: np.ndarray | None = None


def find_checkpoint(run_dir: Path) -> Path:
    """Return ``checkpoint_last.pt`` of a run, or its newest checkpoint without one."""
    # Sorted so that the newest checkpoint of this run is last, those of runs below it first.
    found = sorted(
        run_dir.glob("**/*.pt"), key=lambda path: (-len(path.parts), path.stat().st_mtime)
    )
    if not found:
        raise ValueError(f"no checkpoint (*.pt) in {run_dir} yet")
    named = [path for path in found if path.name == "checkpoint_last.pt"]
    return (named or found)[-1]


def read_configuration(checkpoint: Path) -> dict[str, Any]:
    """Return the configuration in a checkpoint; see ``read_run``."""
    return read_run(checkpoint)[0]


def read_run(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the configuration in a checkpoint, and the record of its run, without the weights.

    Raises:
        ValueError: the file is not a checkpoint of fairseq.
    """
    from ..checkpoint_files import read_data
    from ..reproduction import RECORD

    try:
        saved = read_data(checkpoint, check=False, only_data=True)
        cfg: dict[str, Any] = {**saved["cfg"], "model": dict(saved["cfg"]["model"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is not a readable checkpoint: {reason}") from error
    return cfg, (saved.get("task_state") or {}).get(RECORD)


def is_finetuned(cfg: dict[str, Any]) -> bool:
    """Whether a configuration is one of fine-tuning, which has no masks."""
    return "num_classes" in cfg["model"]


def read_example(checkpoint: Path) -> Example:
    """Load the longest readable clip of the training data, draw masks, and predict.

    Raises:
        OSError: the checkpoint cannot be read.
        ValueError: it is not one of pre-training on sound, or no clip can be read.
    """
    loaded = load_for_drawing(checkpoint)
    return make_example(loaded, *find_longest(loaded, 1)[0])


def load_for_drawing(checkpoint: Path, device: str = "cpu") -> Loaded:
    """Load a model of sound.

    Raises:
        OSError: the checkpoint cannot be read.
        ValueError: it is not one of ours, or a model of images.
    """
    from ..inference.loading import choose_device, load_state
    from ..models.interop import read_checkpoint

    chosen = choose_device(device)
    state = read_checkpoint(checkpoint)
    state["cfg"]["model"]["compile"] = False  # takes longer than the single pass here
    loaded = load_state(checkpoint, state, chosen)
    if loaded.images is not None:
        raise ValueError(f"{checkpoint} is a model of images, which are not drawn")
    return loaded


def find_longest(loaded: Loaded, most: int) -> list[tuple[str, Tensor]]:
    """Return names and log-mel energies [n, F] of the longest usable clips of the training data.

    Raises:
        ValueError: the manifest cannot be read, or none of its longest clips.
    """
    from ..data.clip import ClipError
    from ..data.manifest import read_manifest
    from ..data.reader import read_energies

    split = (loaded.cfg.get("dataset") or {}).get("train_subset", "train").split(",")[0]
    manifest = read_manifest(Path(loaded.cfg["task"]["data"]) / f"{split}.tsv")
    order = np.argsort(-manifest.sizes, kind="stable")[:MOST_CLIPS].tolist()  # the least padding
    found, problems = [], []
    for index in order:
        try:
            energies = read_energies(manifest.path(index), loaded.front_end)
        except ClipError as error:
            problems.append(f"{manifest.path(index)}: {error}")
            continue
        found.append((manifest.name(index), energies))
        if len(found) == most:
            return found
    if not found:
        raise ValueError(f"none of the {len(problems)} longest clips can be read: {problems[0]}")
    return found


def make_example(loaded: Loaded, name: str, energies: Tensor) -> Example:
    """Draw masks of a clip, and predict its hidden patches; the model is one of pre-training."""
    import torch

    from ..masking import MaskSpec, draw_masks
    from ..models.eat import EatModel
    from ..models.prediction import measure_agreement, reconstruct

    model = loaded.model
    assert isinstance(model, EatModel)
    source = loaded.front_end.finish(energies)  # [1, T, F]
    grid = model.patch_encoder.grid_of(source[None])
    flexible = loaded.cfg["task"].get("flexible_mask", False)
    spec = MaskSpec.from_options(model.patch_encoder.cfg, grid, flexible=flexible)
    masks = draw_masks(spec, model.cfg.clone_batch, torch.Generator().manual_seed(0))  # [K, L]
    with torch.no_grad():
        step = model.make_step(source[None], source[None], masks, noise_seed=0)
        reconstructed = reconstruct(step)
        agreement = measure_agreement(step) if reconstructed is None else None
    spectrogram = source[0].numpy().copy()
    spectrogram[len(energies) :] = np.nan
    return Example(
        name=name,
        spectrogram=spectrogram,
        low_hz=loaded.front_end.spectra.low_hz,
        masks=masks[:NUM_MASKS].unflatten(1, grid).bool().numpy(),
        reconstructions=None if reconstructed is None else reconstructed[:NUM_MASKS, 0].numpy(),
        agreements=None if agreement is None else agreement[:NUM_MASKS].unflatten(1, grid).numpy(),
    )
