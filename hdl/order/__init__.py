"""Order port: message encoder, TCP session and the way to and from the order pins."""
