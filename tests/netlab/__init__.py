"""Two or more network namespaces with a line of our own between them: delay, loss, a rate, cuts, new addresses.

    with Netlab(delay_ms=25, loss=0.01, rate_mbit=100) as lab:
        process = lab.popen("left", [sys.executable, "-m", "something", lab.addresses["right"]])
        lab.cut("left-to-right")

Own code in user space (`line.c`) instead of netem, which many kernels (containers' and CI's above all) don't have.
"""

from tests.netlab.lab import Counts, Netlab, NetlabUnavailable

__all__ = ["Counts", "Netlab", "NetlabUnavailable"]
