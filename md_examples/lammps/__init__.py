"""LAMMPS inputs for the pair style, their plots, and LAMMPS with forces from Python."""
