"""Small helpers without a better home; nothing here imports another part of the package."""
