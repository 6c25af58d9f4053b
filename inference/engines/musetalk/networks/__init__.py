"""Our own implementations of the networks. Parameter names and shapes match the published files."""
