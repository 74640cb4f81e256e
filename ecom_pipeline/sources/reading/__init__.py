"""How files become rows: their letters, records and fields; every adapter reads files through here.

A record that cannot be read becomes a row that says why, or its file is refused: rows in are rows kept or rejected.
"""
