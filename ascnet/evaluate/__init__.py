"""How good an encoder is: features of videos, nearest-neighbour retrieval, baselines, tables and pictures."""
