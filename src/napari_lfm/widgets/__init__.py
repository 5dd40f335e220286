"""Dock widgets: for each a view (Qt) and a controller, plain state and a pure `resolve`; no maths."""
