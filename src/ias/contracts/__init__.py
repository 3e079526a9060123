"""What one process promises another: types that cross process boundaries. Nothing here does I/O."""
