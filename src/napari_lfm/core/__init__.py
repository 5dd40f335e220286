"""Plain vocabulary shared by every room: events, problems, estimates, devices, memory budget,
metrics. Nothing here knows optics or files."""
