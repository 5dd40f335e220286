"""Geometry of the sensor image: lattice calibration, rectification, views, epipolar images, refocus."""
