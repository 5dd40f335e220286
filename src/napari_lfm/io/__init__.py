"""Reading and writing files: TIFF, OME-Zarr, points tables, and the provenance that travels in them."""
