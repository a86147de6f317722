"""Floor 1: classifiers: the zoo, wrapping, training, saving."""

from heatprint.core.classifier import Classifier
from heatprint.models.checkpoint import load, save
from heatprint.models.predict import predict
from heatprint.models.train import Training, train
from heatprint.models.wrap import wrap
from heatprint.models.zoo import build, names

__all__ = ["Classifier", "Training", "build", "load", "names", "predict", "save", "train", "wrap"]
