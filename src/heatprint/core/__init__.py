"""Floor 0: the values that flow, the words they are described with, and the store they are kept in.

Importing this package loads nothing. `errors`, `registry`, `digest`, `streams` and `store` start without
torch; `values`, `classifier`, `goals`, `norms` and `lattice` handle tensors and need it.
"""
