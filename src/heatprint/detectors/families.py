"""What an identifier can say: families of attacks, and the algorithms in each.

Two attacks of one family leave nearly the same trace (PGD and BIM at one eps cannot be told apart), so the family is
the first answer and the algorithm the second.
"""

from __future__ import annotations

FAMILIES = {
    "clean": "clean",
    "noise": "benign change",
    "hot pixels": "benign change",
    "jpeg": "benign change",
    "blur": "benign change",
    "one-pixel": "sparse",
    "few-pixel": "sparse",
    "jsma": "sparse",
    "sigma-zero": "sparse",
    "fgsm": "single-step Linf",
    "pgd": "iterative Linf",
    "mifgsm": "iterative Linf",
    "apgd": "iterative Linf",
    "smooth-sign": "iterative Linf",
    "deepfool": "L2 minimal",
    "carlini-wagner": "L2 minimal",
    "ddn": "L2 minimal",
    "square": "black-box squares",
    "spatial": "spatial or patch",
    "patch": "spatial or patch",
}
"""Algorithm to family."""

BENIGN = ("clean", "benign change")
"""Families that are no attack."""
