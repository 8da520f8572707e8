"""LAMMPS inputs for the pair style, plots of their results, and LAMMPS with Python forces."""
