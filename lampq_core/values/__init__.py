"""Records and the files they are kept in: what travels between the rooms, and depends on none of them."""
