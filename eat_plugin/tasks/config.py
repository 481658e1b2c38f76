"""Options that all tasks share."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass

from ..inputs.sound import InputConfig
from ..options import MISSING, follow, option
from . import sound


@dataclass
class AudioConfig(InputConfig, FairseqDataclass):
    """Options that all tasks share."""

    data: str = option(MISSING, "folder with train.tsv and the other manifests")
    crop: str = option("start", "window of a longer training clip: start or random")
    fbank: sound.FbankConfig = field(
        default_factory=sound.FbankConfig, metadata={"help": "computation of spectrograms"}
    )
    rebuild_batches: bool = option(True, "form new batches in each epoch")
    max_skipped_share: float = option(0.01, "largest share of an epoch's clips that may fail")
    wait_for_data: float = option(
        0.0, "minutes to wait if no clip can be read, until the run saves and ends"
    )
    seed: int = follow("common.seed")
