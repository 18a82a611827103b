"""A corpus of transcripts: read, searched, sampled and clustered."""
