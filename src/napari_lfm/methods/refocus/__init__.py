"""Virtual refocusing: the engine that a slider can drive, surfaces, movies, and the method."""
