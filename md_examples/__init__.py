"""Example scripts to copy and change, one for each task, and inputs for LAMMPS and i-PI."""
