"""What was kept: artifacts with hashes, MLflow."""
