"""Floor 2: attacks. One file per attack; `attack` is the door that judges them all."""

from heatprint.attacks.door import attack
from heatprint.attacks.every_target import attack_every_target
from heatprint.attacks.foreign.adapt import adapt
from heatprint.core.protocols import Attack
from heatprint.core.registry import Registry

ATTACKS: Registry[Attack] = Registry(
    "attacks",
    {
        "apgd": "heatprint.attacks.apgd:APGD",
        "art": "heatprint.attacks.foreign.art:ART",
        "bim": "heatprint.attacks.bim:BIM",
        "blur": "heatprint.attacks.blur:Blur",
        "boundary": "heatprint.attacks.boundary:Boundary",
        "carlini-wagner": "heatprint.attacks.carlini_wagner:CarliniWagner",
        "corner-search": "heatprint.attacks.corner_search:CornerSearch",
        "ddn": "heatprint.attacks.ddn:DDN",
        "deepfool": "heatprint.attacks.deepfool:DeepFool",
        "ead": "heatprint.attacks.ead:EAD",
        "ensemble": "heatprint.attacks.ensemble:Ensemble",
        "fab": "heatprint.attacks.fab:FAB",
        "fgsm": "heatprint.attacks.fgsm:FGSM",
        "fmn": "heatprint.attacks.fmn:FMN",
        "foolbox": "heatprint.attacks.foreign.foolbox:Foolbox",
        "hopskipjump": "heatprint.attacks.hopskipjump:HopSkipJump",
        "jpeg": "heatprint.attacks.jpeg:JPEG",
        "jsma": "heatprint.attacks.jsma:JSMA",
        "mifgsm": "heatprint.attacks.mifgsm:MIFGSM",
        "noise": "heatprint.attacks.noise:Noise",
        "one-pixel": "heatprint.attacks.one_pixel:OnePixel",
        "patch": "heatprint.attacks.patch:Patch",
        "pgd": "heatprint.attacks.pgd:PGD",
        "salt-pepper": "heatprint.attacks.salt_pepper:SaltPepper",
        "sigma-zero": "heatprint.attacks.sigma_zero:SigmaZero",
        "simba": "heatprint.attacks.simba:SimBA",
        "smooth-sign": "heatprint.attacks.smooth_sign:SmoothSign",
        "spatial": "heatprint.attacks.spatial:Spatial",
        "square": "heatprint.attacks.square:Square",
        "torchattacks": "heatprint.attacks.foreign.torchattacks:TorchAttacks",
        "universal": "heatprint.attacks.universal:Universal",
    },
)

make, names = ATTACKS.make, ATTACKS.names

__all__ = ["ATTACKS", "adapt", "attack", "attack_every_target", "make", "names"]
