"""What `recsys serve` and the library below it do under load, as programs; records in results/serving."""
