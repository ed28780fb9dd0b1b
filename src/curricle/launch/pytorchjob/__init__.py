"""A `Job` as a Kubeflow PyTorchJob: `render` (pure), `client` (submit, wait, cancel, attach), `logs`, `reasons` (pure).

Only `client` and `logs` talk to a cluster; importing this package imports neither kubernetes nor torchx.
"""
