"""The built-in recipes, as TOML files."""
