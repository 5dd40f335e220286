"""napari-lfm: interactive computational microscopy for napari.

The same engine serves three doors: dock widgets in napari, a command line
(``napari-lfm``), and this Python API.
"""

__version__ = "0.1.0"
