"""Where a training job runs. It knows an argv and resources, never what is trained."""
