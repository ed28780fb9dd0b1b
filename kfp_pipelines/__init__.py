"""Curricle's steps as Kubeflow components and pipelines. The only package that imports kfp; no training logic lives here."""

CONTROL_IMAGE = "curricle/control:dev"
"""The image that components run in, as it stands in the committed YAML. Compile with another by `compile_all(image=...)`."""

TRAINER_IMAGE = "curricle/trainer:dev"
"""Image of the training jobs, and of the component that needs torch: evaluation."""
