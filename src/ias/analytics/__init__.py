"""Analytics: usage over time. See README.md beside this file."""
