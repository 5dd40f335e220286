"""napari dock widgets: for each a view (Qt) and a controller; no maths here."""
