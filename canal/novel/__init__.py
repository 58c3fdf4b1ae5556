"""Novel cells: found in groups, named, taught."""
