"""Floor 7: what an installation lacks, what is wrong with a run folder, and how it is mended."""

from heatprint.doctor.examine import examine
from heatprint.doctor.finding import Examined, Finding, Remedy
from heatprint.doctor.installation import findings

__all__ = ["Examined", "Finding", "Remedy", "examine", "findings"]
