"""Floor 7: a finished run in the forms of other tools; never imports torch."""

from heatprint.export.door import TARGETS, export

__all__ = ["TARGETS", "export"]
