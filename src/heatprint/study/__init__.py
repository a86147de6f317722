"""Floor 6: the experiment from images to report: a recipe, the straight line, and the steps it is made of."""

from heatprint.study.pipeline import study
from heatprint.study.recipe import Recipe, load_recipe, recipe_names

__all__ = ["Recipe", "load_recipe", "recipe_names", "study"]
