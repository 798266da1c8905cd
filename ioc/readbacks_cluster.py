"""Readbacks of a cluster's consumers."""

from __future__ import annotations

from ptychostream.ioc.view import Groups, Readback

# fmt: off
CLUSTER: Groups = {
    "cluster": (
        Readback("ConsumersExpected_RBV", "Consumers there ought to be", int, lambda v: v.cluster.expected, high=100),
        Readback("ConsumersLive_RBV", "Consumers that report", int, lambda v: v.cluster.live, high=100),
        Readback("ConsumersMissing_RBV", "Consumers that do not report", int,
                 lambda v: v.cluster.expected - v.cluster.live, high=100, fields={"HIGH": 1, "HSV": "MAJOR"}),
        Readback("ConsumerRestarts_RBV", "Consumers that came back anew", int, lambda v: v.cluster.restarts,
                 high=1000),
        Readback("FramesLost_RBV", "Missed frames a dead consumer held", int, lambda v: v.cluster.lost,
                 kind="int64in", egu="frames", high=10**9, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("FramesTwice_RBV", "Frames on the canvases of two consumers", int, lambda v: v.cluster.twice,
                 kind="int64in", egu="frames", high=10**9, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("StateAge_RBV", "Oldest canvas of a consumer that reports", float, lambda v: v.cluster.state_age_s,
                 egu="s", prec=1, high=60, fields={"HIGH": 10, "HSV": "MINOR", "MDEL": 0.1, "ADEL": 5}),
        Readback("Consumers_RBV", "Every consumer in one line", str, lambda v: "\n".join(v.cluster.lines),
                 length=8192),
        Readback("ClusterOrders_RBV", "What the collector tells the consumers", str,
                 lambda v: v.collector.orders_text, length=4096),
    ),
}
# fmt: on
