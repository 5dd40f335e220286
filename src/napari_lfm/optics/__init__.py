"""Physics only: microscopes, point spread functions, the lenslet projector."""
