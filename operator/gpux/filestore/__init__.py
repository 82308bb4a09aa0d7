"""The backend of files on a file system with hard and symbolic links: one process, one directory."""
