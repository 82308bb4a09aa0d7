"""The command ``opengpu``, for people: one module per subcommand."""
