"""Forward maps. What they are made of, beside options of their own (ConfigError where one is out of range):

    shape: (C, H, W) of one field.
    num_levels: K, at least 1.
    sigma: the forward noise, on the scale of pixels in [0, 1].
    spacing: of the levels: uniform | log (coarser near 0) | quadratic (finer near 0).

Diagonals are broadcastable to (B, C, H, W), over the coefficients of the basis of the map.
"""
