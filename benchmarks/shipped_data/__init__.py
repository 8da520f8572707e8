"""Scripts that computed and wrote the shipped DFT dataset of Si, C and SiC."""
