"""Item indexes: exact nearest items under filters, saved with a checksum and the encoder's fingerprint."""
