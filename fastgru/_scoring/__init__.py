"""What a scorer is made of: networks by one face, sequences of different lengths, columns of tables."""
