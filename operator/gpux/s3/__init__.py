"""The store's backend on any S3 service: files and calls in one bucket, for any number of stores at once."""
