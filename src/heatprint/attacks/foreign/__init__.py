"""Attacks of torchattacks, Foolbox and ART behind our door."""
