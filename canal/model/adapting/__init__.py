"""A file's own cells help to answer: what is estimated from them, in closed form."""
