"""Wire layouts: the only place in the project that knows a byte offset."""
