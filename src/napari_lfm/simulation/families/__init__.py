"""Builders of phantom families: each draws a `Scene` of one kind inside a `Box`, from a random generator."""
