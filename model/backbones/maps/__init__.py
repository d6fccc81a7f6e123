"""Towers as maps: levels of any tower, and ResNets, whose tokens are the cells of a map."""
