"""Short scripts that relax structures and run molecular dynamics with a trained model."""
