"""What the method `localize` is made of: depth curves of the three algorithms, and points from them."""
