"""Isotropic restoration: what a user may ask, the passes of a network, training on the stack itself."""
