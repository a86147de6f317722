"""Which files of two folders belong together."""

from __future__ import annotations

from collections.abc import Sequence

from heatprint.core.errors import InvalidInput


def partners(clean: Sequence[str], attacked: Sequence[str]) -> dict[str, str]:
    """Which attacked image belongs to a clean one: that of the same relative path, else of the same but for the suffix.

    Args:
        clean: Relative paths of the clean images.
        attacked: Relative paths of the attacked ones.

    Returns:
        Clean to attacked path; an image without a partner is missing.

    Raises:
        InvalidInput: Several images left over share a path but for the suffix.
    """
    known = set(attacked)
    found = {name: name for name in clean if name in known}
    left: dict[str, tuple[list[str], list[str]]] = {}
    for side, names in enumerate((clean, attacked)):
        for name in names:
            if name not in found:
                left.setdefault(name.rpartition(".")[0], ([], []))[side].append(name)
    for ours, theirs in left.values():
        if (len(ours) > 1 and theirs) or (len(theirs) > 1 and ours):
            raise InvalidInput(
                f"--against: the images {', '.join(ours)} and the attacked {', '.join(theirs)} differ in their suffix "
                "only, so it is not known which belong together. Give both of a pair the same name."
            )
        if ours and theirs:
            found[ours[0]] = theirs[0]
    return found
