"""CellTypist's models as voters: read without running code, and asked as CellTypist asks them."""
