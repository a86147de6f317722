"""Floor 1: images with stable names: folders, the built-in menagerie, public sets, splits."""

from heatprint.data.folder import Skipped, load_files, load_folder, load_images
from heatprint.data.splits import ROLES, split

__all__ = ["ROLES", "Skipped", "load_files", "load_folder", "load_images", "split"]
