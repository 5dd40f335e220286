"""Reading and writing files: TIFF, OME-TIFF, OME-Zarr, points tables, and the provenance that
travels in them."""
