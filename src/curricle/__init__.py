"""Curricle trains text encoders in chains of stages on Kubeflow, and runs the same pipeline on one machine."""

__version__ = "0.1.0"
