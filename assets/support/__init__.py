"""What assets are declared, stored and compared with."""
