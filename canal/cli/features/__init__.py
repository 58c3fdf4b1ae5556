"""The commands of features, one file a feature."""
