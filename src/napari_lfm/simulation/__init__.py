"""Phantoms, cameras, and simulated measurement-truth pairs."""
