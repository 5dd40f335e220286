"""Vocabulary of every room: events, problems, devices, memory, metrics; it knows no optics and no files."""
