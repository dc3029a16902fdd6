"""The service over HTTP: the application, its limits, errors, keys and lines."""
