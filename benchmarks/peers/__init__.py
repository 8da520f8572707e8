"""Other potentials measured beside ours, in environments of their own."""
