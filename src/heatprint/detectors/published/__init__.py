"""Detectors as they were published, without their leaks: one file each, the rivals of the heat print."""
