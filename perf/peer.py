"""DeGLA's training step in torch, on open_clip's model: what perf/step.py measures ours against.

Imports torch, open_clip and numpy only, so that it runs where JAX is not installed. As a program,
`python perf/peer.py FOLDER` takes a step for each line of its input, in the precision that the line
names (float32 or bfloat16), and prints what it took as a line of json.
"""

import copy
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Peer:
    """A model, its EMA teacher and its AdamW, training on one batch.

    Args:
      folder: holds a model in open_clip's layout (pretrained/load.py) and batch.npz. Every
        negative of the batch is valid.
      learning_rate: constant.
    """

    def __init__(self, folder: Path, learning_rate: float = 1e-6):
        config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        self.student = open_clip.CLIP(**config)
        self.student.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        parameters = list(self.student.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        # The fused update is the fastest that torch has on a CPU.
        self.optimizer = torch.optim.AdamW(
            groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True
        )
        with np.load(folder / "batch.npz") as batch:
            self.image, text = (torch.from_numpy(batch[name]) for name in ("image", "text"))
        self.num_texts = text.shape[1]
        self.text = text.flatten(0, 1).long()

    def step(self, precision: str = "float32") -> dict:
        """Updates student and teacher; returns the loss, and the seconds of each part."""
        parts, start = {}, time.perf_counter()

        def lap(part):
            nonlocal start
            parts[part], start = time.perf_counter() - start, time.perf_counter()

        # Casts are cached within one autocast region.
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            with torch.no_grad():
                teacher = self._embed(self.teacher)
            lap("teacher, forward")
            student = self._embed(self.student)
            lap("student, forward")
        loss = degla_loss(student, teacher, self.student.logit_scale.exp())
        loss.backward()
        lap("student, backward")
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            weights = list(self.student.parameters())
            torch._foreach_lerp_(list(self.teacher.parameters()), weights, 1 - 0.9996)
            self.student.logit_scale.clamp_(0, math.log(100))
        lap("optimizer and EMA")
        return {"loss": loss.item(), "seconds": sum(parts.values()), "parts": parts}

    def _embed(self, model):
        """Unit-norm float32 images [N, D], captions [N, D] and negatives [N, K, D]."""
        image = F.normalize(model.encode_image(self.image).float(), dim=-1)
        text = F.normalize(model.encode_text(self.text).float(), dim=-1)
        text = text.unflatten(0, (-1, self.num_texts))
        return image, text[:, 0], text[:, 1:]


def degla_loss(student, teacher, logit_scale):
    """DeGLA's loss (arXiv 2504.16801) of (images, captions, negatives); see methods/degla.py."""
    (image, text, negatives), (_, teacher_text, _) = student, teacher
    right = torch.arange(len(image))
    image_rows = logit_scale * image @ torch.cat([text, negatives.flatten(0, 1)]).T
    base = F.cross_entropy(image_rows, right) + F.cross_entropy(logit_scale * text @ image.T, right)

    first = torch.zeros(len(image), dtype=torch.long)
    choices = torch.cat([text[:, None], negatives], dim=1)
    igc = F.cross_entropy(logit_scale * torch.einsum("nd,nkd->nk", image, choices), first)
    choices = torch.cat([teacher_text[:, None], negatives], dim=1)
    tgc = F.cross_entropy(10 * torch.einsum("nd,nkd->nk", text, choices), first)
    distill = sum((ours - its).square().sum() for ours, its in zip(student, teacher, strict=True))
    return base / 2 + 0.1 * igc + 0.1 * tgc + 0.005 * distill


if __name__ == "__main__":
    peer = Peer(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(peer.step(line.strip())), flush=True)
