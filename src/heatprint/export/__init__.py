"""Floor 6: a finished run in the forms of other tools; never imports torch."""
