"""What runs beside the API for as long as the process lives."""
