"""What every stored table holds."""
