"""Floor 1: what a finished run holds, read for other tools, for the report and for the inspector. Never wakes torch."""
