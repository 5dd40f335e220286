"""Dock widgets: a view (Qt) and a controller for each, plain state and a pure `resolve` between them; no maths."""
