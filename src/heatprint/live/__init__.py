"""Floor 5: a model at work. `Guard` checks what comes in, `Laboratory` answers the inspector; nothing knows of HTTP."""

from heatprint.live.guard import Guard
from heatprint.live.laboratory import Laboratory
from heatprint.live.verdict import Attack, Checked, Remedy, Restored

__all__ = ["Attack", "Checked", "Guard", "Laboratory", "Remedy", "Restored"]
