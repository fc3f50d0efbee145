"""The sweep file: YAML, schema, search space, compare axes, resolution, content addresses, and the diff of two files."""
