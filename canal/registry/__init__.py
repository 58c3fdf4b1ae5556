"""What was kept: records, artifacts with hashes, MLflow."""
