"""Benchmarks behind 'napari-lfm bench'; nothing here is imported by the product."""
