"""Measurements that the README quotes. Not shipped."""
