"""Host side: configuration, devices, the daemon and the t2q command line."""
