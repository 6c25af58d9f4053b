"""An engine whose library was installed by half."""

raise ImportError("libhalf.so.1: cannot open shared object file: No such file or directory")
