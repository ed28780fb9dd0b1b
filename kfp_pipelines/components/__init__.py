"""The components: typed doors to `curricle.steps`, 3-10 lines each. Their `Args:` are what the Kubeflow UI shows."""
