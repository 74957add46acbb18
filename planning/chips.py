"""What a chip can do at most, as its maker publishes it."""

import dataclasses

from errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip.

    Attributes:
      name: as it is called.
      flops: a second, of dense bfloat16 products.
      memory: bytes.
      bandwidth: of its memory, bytes a second.
      interconnect: bytes a second that it can send over all its links to others at once.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float


# cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e: peak compute, HBM capacity and bandwidth, and
# interchip interconnect bandwidth (2400, 1600, 4800 and 3584 Gbit/s a chip).
TPUS = {
    "v4": Chip("TPU v4", 275e12, 32 * GIB, 1228e9, 300e9),
    "v5e": Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip("TPU v6e", 918e12, 32 * GIB, 1640e9, 448e9),
}
# nvidia.com, H100 data sheet (SXM5; without sparsity) and A100 data sheet (80 GB SXM4): NVLink is
# given in both directions together, 900 and 600 GB/s.
GPUS = {
    "h100": Chip("H100 SXM", 989.4e12, 80e9, 3350e9, 450e9),
    "a100": Chip("A100 SXM 80 GB", 312e12, 80e9, 2039e9, 300e9),
}
GPUS["gpu"] = GPUS["h100"]


def split(name: str) -> tuple[Chip, str]:
    """The chip and the shape of v5e:2x4 or gpu:8.

    Raises:
      UserError: no such kind of chip.
    """
    kind, _, shape = name.partition(":")
    known = TPUS | GPUS
    if kind not in known or not shape:
        raise UserError(
            f"--plan={name}: give a kind of chip and how many, such as v5e:2x4, v5p:4x4x4 or "
            f"gpu:8; there are {', '.join(known)}"
        )
    return known[kind], shape
