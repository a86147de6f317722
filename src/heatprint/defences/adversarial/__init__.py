"""Adversarial training: learning on images that are attacked at every step, against the weights of that step."""
