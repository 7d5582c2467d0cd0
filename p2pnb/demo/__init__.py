"""`p2pnb demo`: two real Jupyter servers, two real kernels, one room.

    servers.py   starts Jupyter servers of their own, with everything in a temporary folder
    kernels.py   runs code in a server's kernel, as a front end does
    script.py    what Ada and Ben do, and the report
"""
