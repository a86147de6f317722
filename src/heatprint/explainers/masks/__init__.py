"""Explanations by switching superpixels off: one segmentation, one mask engine, several methods."""
