"""How the shipped DFT dataset of Si, C and SiC was computed and written."""
