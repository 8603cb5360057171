"""Run a program without root's privileges, so that file modes apply."""

import sys

DROP = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: of use to root alone
    prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: gone with the next exec
os.execv(sys.argv[1], sys.argv[1:])
"""
BOUND_BY_MODES = [sys.executable, "-I", "-S", "-c", DROP]  # to stand before a command
