"""Cannot start."""

raise RuntimeError("the model is of the wrong shape")
