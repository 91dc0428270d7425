"""What every other room stands on: errors, configuration, safe files, folders."""
