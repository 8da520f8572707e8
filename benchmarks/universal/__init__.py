"""A published universal potential, converted and compared with its original."""
