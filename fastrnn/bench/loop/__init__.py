"""Suite `loop`: whole steps of ordinary models, with a framework's own layers and fastrnn's."""
