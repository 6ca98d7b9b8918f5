"""A module whose import ends on two members and never on the third: a gang that forms for ever."""

import sys
import time

if "worker-1." in " ".join(sys.argv):  # the member's directory is among the arguments
    time.sleep(1000)
