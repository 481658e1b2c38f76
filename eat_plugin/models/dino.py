"""DINO with prototypes for whole clips (DINOv2, Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.processes import add_processes, sum_over_processes
from ..options import require
from .step import Step, UtteranceObjective
from .utterance_options import UNIFORM

if TYPE_CHECKING:
    from .config import EatConfig
    from .eat import EatModel

HEAD = "dino_head"
BOTTLENECK = 64  # its random directions are far enough apart for sharp targets from the start
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURES = (0.04, 0.07)  # at the start, and after the warm-up
WARM_UP = 0.3  # share of the run
BALANCING_STEPS = 3
EPSILON = 1e-5


class DinoHead(nn.Module):
    """An MLP to a bottleneck, and the cosines of its output to prototypes.

    Its input is standardised across clips. What all clips have in common is most of CLS at first;
    with it the head learns a constant, before CLS differs between clips.

    Args:
        width: D.
        prototypes: P.
    """

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, BOTTLENECK),
        )  # fmt: skip
        self.prototypes = nn.Parameter(torch.randn(prototypes, BOTTLENECK))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, D] to cosines [N, P], float32 at least."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        x = self.mlp(standardize(x.to(dtype)).to(self.prototypes.dtype))
        x = F.normalize(x.to(dtype), dim=-1)
        return F.linear(x, F.normalize(self.prototypes.to(dtype), dim=-1))


class PrototypeDino(UtteranceObjective):
    """CLS predicts to which prototypes the teacher assigns the clip.

    The teacher's head is the average of the student's, and is applied to ``Step.utterance_target``.
    """

    name, weight_option, averaged_parts = "dino", "dino_loss", (HEAD,)
    needs_utterance_target = True

    def validate(self) -> None:
        """Require a CLS token, targets that differ between clips, and two prototypes."""
        super().validate()
        rule = "for model.dino_loss choose layers, last or cls: these differ between clips"
        target = self.cfg.cls_target
        require(target not in UNIFORM, "model.cls_target", repr(target), rule)
        number = self.cfg.dino_prototypes
        require(number >= 2, "model.dino_prototypes", number, "it must be 2 or more")

    def add_parameters(self, model: EatModel) -> None:
        """Register ``dino_head``."""
        model.dino_head = DinoHead(self.cfg.embed_dim, self.cfg.dino_prototypes)

    def compute(self, step: Step) -> tuple[Tensor, int]:
        """Return the mean cross-entropy times N_hidden, a scalar, and N_hidden."""
        model, target = step.model, step.utterance_target
        assert target is not None
        assert model.teacher is not None
        with torch.no_grad():
            head = model.teacher.parts[HEAD]
            cosines = head(target)  # [B, P]
            assigned = assign(cosines, teacher_temperature(self.cfg, model.num_updates))
            step.statistics.update(measure_entropy(assigned))
        cosines = model.get_submodule(HEAD)(self.cls_of(step))  # [B*K, P]
        return self.average(step, cross_entropy(cosines, assigned))


def standardize(x: Tensor) -> Tensor:
    """Give each channel of x [N, D] mean 0 and variance 1 over the rows of all processes."""
    total = add_processes(torch.cat([x.sum(dim=0), x.new_full((1,), x.size(0))]))
    centred = x - total[:-1] / total[-1]
    variance = add_processes(centred.square().sum(dim=0)) / total[-1]
    return centred * (variance + EPSILON).rsqrt()


def teacher_temperature(cfg: EatConfig, num_updates: int) -> float:
    """Temperature at an update: it rises linearly over the first share of the run."""
    start, end = TEACHER_TEMPERATURES
    steps = WARM_UP * cfg.max_update
    return end if num_updates >= steps else start + (end - start) * num_updates / steps


def assign(cosines: Tensor, temperature: float) -> Tensor:
    """Assign clips to prototypes so that all prototypes get as much (Sinkhorn-Knopp).

    The clips of all processes count (SwAV, Caron et al. 2020, arXiv 2006.09882, sec. 3.1).

    Args:
        cosines: [B, P].
        temperature: small to sharpen.

    Returns:
        [B, P], a distribution in each row.
    """
    share = ((cosines - 1) / temperature).exp()  # at least e^-50
    for _ in range(BALANCING_STEPS):
        share = share / sum_over_processes(share.sum(dim=0))
        share = share / share.sum(dim=1, keepdim=True)
    return share


def cross_entropy(cosines: Tensor, assigned: Tensor) -> Tensor:
    """Cross-entropy of each clone [B*K] from cosines [B*K, P] and its clip's target [B, P]."""
    log_probs = (cosines / STUDENT_TEMPERATURE).log_softmax(dim=-1)
    log_probs = log_probs.unflatten(0, (assigned.size(0), -1))  # [B, K, P]
    return -(log_probs * assigned.unsqueeze(1)).sum(dim=-1).flatten()


def measure_entropy(assigned: Tensor) -> dict[str, Tensor]:
    """Measure the mean entropy of targets [B, P], and that of their mean over all clips, in nats.

    Both near log P: every clip has the same, uniform target. Both near 0: all clips have the same
    prototype.
    """
    total = torch.cat([assigned.sum(dim=0), assigned.new_full((1,), assigned.size(0))])
    total = sum_over_processes(total)
    mean = total[:-1] / total[-1]
    return {
        "dino_entropy": -torch.xlogy(assigned, assigned).sum(dim=1).mean(),
        "dino_entropy_of_mean": -torch.xlogy(mean, mean).sum(),
        "dino_log_prototypes": mean.new_full((), math.log(len(mean))),
    }
