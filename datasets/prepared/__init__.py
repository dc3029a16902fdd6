"""A prepared dataset on disk: its files, arrays and vocabularies. Opens with numpy alone."""
