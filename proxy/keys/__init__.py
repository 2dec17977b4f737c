"""The back room: the life of a key, from minting to revocation. The walk only reads what is kept here."""
