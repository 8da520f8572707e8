"""Structures, labels and datasets: graphs, neighbour lists, HDF5 files, statistics."""
