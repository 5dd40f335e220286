"""What the method `localize` is made of.

Depth curves (`finders`, `csc` with its `dictionary`, `phase_space`), points from them (`points`), the joint
fit (`templates`, `refit`, `joint`; `responses/` holds what takes long to compute), what is asked about a
light field or a movie (`look`, `engine`, `movie`, `traces`, `table`), and the card of a training (`card`,
`trial`).
"""
