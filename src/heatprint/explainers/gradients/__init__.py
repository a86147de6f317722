"""The gradient family: methods that read the gradient of the score, plain, averaged, or with another ReLU."""
