"""Floor 7: a finished run as one page that opens from an e-mail. Nothing here imports torch."""

from heatprint.report.atlas_page import atlas_page
from heatprint.report.door import report

__all__ = ["atlas_page", "report"]
