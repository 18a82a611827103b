"""What Marple costs beside the floor of the same machine and beside other libraries."""
