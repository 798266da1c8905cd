"""Reads figures over Channel Access, and follows one of them: `python read_ssim_caproto.py ptycho:NN1: 10`."""

import sys
import time

from caproto.threading.client import Context

prefix = sys.argv[1] if len(sys.argv) > 1 else "ptycho:NN1:"
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
context = Context()
names = ("FramesReceived_RBV", "FramesStitched_RBV", "SSIM_RBV", "Agent:SSIM")
records = dict(zip(names, context.get_pvs(*(prefix + name for name in names)), strict=True))
for name, record in records.items():
    record.wait_for_connection(timeout=30)
    print(f"{prefix}{name} = {record.read().data[0]:g}")


def show(_subscription, response):
    print(f"stitched {response.data[0]:g} frames", flush=True)


subscription = records["FramesStitched_RBV"].subscribe()
subscription.add_callback(show)
time.sleep(seconds)
subscription.clear()
