"""Networks. Those of states are called as net(x, t, cond) and return (B, C, H, W), with

    x: (B, inputs C, H, W); t: indices of levels, (B,), also between levels; cond: the map's random numbers, (B, 2).

What they are made of, beside options of their own (ConfigError where one is out of range):

    shape: (C, H, W).
    num_levels: K.
    conditional: whether it sees `cond`.
    inputs: fields of that shape stacked along the channels of x.
"""
