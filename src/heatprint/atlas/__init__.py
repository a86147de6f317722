"""Floor 5: what the groups of a map mean: cards, flows of attacked images, and tests of what they suggest."""
