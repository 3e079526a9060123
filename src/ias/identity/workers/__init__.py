"""What runs beside the requests for as long as the process lives."""
