"""The session over a wire that loses, with the kernel's TCP at its other end."""
