"""What every stored table holds: columns, ranges, keys, order, references. Reading and writing belong elsewhere."""
