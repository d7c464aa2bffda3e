"""Feed handlers: from UDP payload bytes to book updates and ends of event."""
