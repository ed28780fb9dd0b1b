"""The verbs of a chain: what the command line and the pipeline components both call."""
