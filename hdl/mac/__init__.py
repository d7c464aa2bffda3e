"""Ethernet: between GMII pins and bytes."""
