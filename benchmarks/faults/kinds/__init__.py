"""Kinds of input that are damaged; `table` lists them."""
