"""Floor 8: the inspector and the guard. They never wake torch: what is live is handed in."""
