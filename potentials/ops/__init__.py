"""Operators with a reference form in plain PyTorch; faster forms plug in here."""
