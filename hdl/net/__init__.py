"""Network: which frames are for us, and buffers for those that have to wait."""
