"""Floor 2: attacks. One file per attack; `attack` is the door that judges them all."""

from heatprint.attacks.door import attack
from heatprint.core.protocols import Attack
from heatprint.core.registry import Registry

ATTACKS: Registry[Attack] = Registry(
    "attacks",
    {
        "bim": "heatprint.attacks.bim:BIM",
        "ddn": "heatprint.attacks.ddn:DDN",
        "fgsm": "heatprint.attacks.fgsm:FGSM",
        "noise": "heatprint.attacks.noise:Noise",
        "one-pixel": "heatprint.attacks.one_pixel:OnePixel",
        "pgd": "heatprint.attacks.pgd:PGD",
    },
)

make, names = ATTACKS.make, ATTACKS.names

__all__ = ["ATTACKS", "attack", "make", "names"]
