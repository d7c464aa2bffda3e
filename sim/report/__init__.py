"""Results of a replay: ``model`` (what is known), ``summary`` (JSON and the table on the screen), ``page`` (HTML),
``write`` (everything into a directory)."""
