"""Device functions with an error planted in them."""


def simplex_hs_without_mean(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g on the free entries, 0 elsewhere: the row of the sum is forgotten."""
    for j in range(g.shape[0]):
        out[j] = g[j] if (code[1 + j] & mask) == 0 else 0.0
