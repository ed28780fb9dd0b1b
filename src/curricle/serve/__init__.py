"""A page and an HTTP API to use one trained model."""
