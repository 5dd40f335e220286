"""What the method `deconvolve-widefield` is made of.

Its parameters (`parameters`), the point spread function (`psf`, `given_psf`), frames with background and
noise (`frames`), the way through the memory (`plan`), and the iteration (`setup`, `solver`).
"""
