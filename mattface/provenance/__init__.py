from mattface.provenance.xmp import *
