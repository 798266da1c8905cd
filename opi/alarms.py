"""The alarm tree for Phoebus's alarm server: what each alarm means, and what to do."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import NamedTuple

from ptychostream.opi.widgets import document


class Alarm(NamedTuple):
    """A record that alarms.

    Attributes
    ----------
    meaning, remedy
        What it means, and what to do.
    delay_s
        How long it must last.
    screen
        The screen that shows more.
    """

    record: str
    meaning: str
    remedy: str
    delay_s: int = 0
    screen: str = "main.bob"


STREAM, POSITIONS, MODEL, SCANS, AGENT, HEALTH = "Stream", "Positions", "Model", "Finished scans", "Agent", "IOC"
ALARMS: dict[str, tuple[Alarm, ...]] = {
    STREAM: (
        Alarm("Connected_RBV", "The detector's channel is not connected: no frame arrives.",
              "Start the detector's IOC and enable its PVA plugin. See that InputPVAName names its channel, and that "
              "EPICS_PVA_ADDR_LIST of this IOC reaches it.", 5, "plugin.bob"),
        Alarm("Ready_RBV", "The next frame would not be served at once.",
              "StatusMessage_RBV says what is missing: detector, model or images.", 30, "plugin.bob"),
        Alarm("EnableCallbacks_RBV", "The subscription to the detector is switched off.",
              "Set EnableCallbacks to Enable.", 60, "plugin.bob"),
        Alarm("QueueUse_RBV", "Frames come faster than they are inferred; at 100 % they are dropped.",
              "Lower the frame rate, set Decimation to Auto, choose a faster engine or precision, or run a cluster.",
              2, "plugin.bob"),
        Alarm("DroppedArrays_RBV", "Frames were dropped.",
              "The records Dropped…_RBV say why. Remove the cause, then ResetCounters.", 0, "accounting.bob"),
        Alarm("FramesMissed_RBV", "Frames never arrived here: their ids are missing.",
              "Look at DroppedOutputArrays of the detector's PVA plugin and at the network, then ResetCounters.", 0,
              "accounting.bob"),
        Alarm("Accounting_RBV", "received = stitched + pending + dropped does not hold: an error of the program.",
              "Save the log and the settings, and report it. Restart the IOC between two scans.", 0,
              "accounting.bob"),
        Alarm("Contradicts_RBV", "Frames contradict the model: energy, distance, pixels or region of the sensor.",
              "Contradiction_RBV says what. Load the model of this geometry, or put the geometry right.", 0,
              "accounting.bob"),
        Alarm("LatencyP99_RBV", "Frames take more than a second to reach the canvas.",
              "Look at the times of the stages. A large arrival time is the network's or the detector's.", 10,
              "accounting.bob"),
        Alarm("ClockErrors_RBV", "Time stamps of frames cannot be right.",
              "Synchronise the detector's clock (NTP, PTP).", 0, "accounting.bob"),
        Alarm("DecimationFactor_RBV", "Not every pattern is inferred: the engine is too slow for the rate.",
              "Accept it for this scan, or lower the rate.", 10, "plugin.bob"),
    ),
    POSITIONS: (
        Alarm("PositionConnected_RBV", "The stream of positions is not connected: frames wait and are dropped.",
              "Start its server. See that the name of its channel is right.", 5, "positions.bob"),
        Alarm("DroppedNoPosition_RBV", "Frames never got a position.",
              "PositionMessage_RBV says why. Look at the names of the attributes and at the clock offset.", 0,
              "positions.bob"),
        Alarm("PositionSamplesConflict_RBV", "One time has two places: two sources write the stream.",
              "Stop one of them.", 0, "positions.bob"),
        Alarm("PandAFaults_RBV", "The PandABox stopped capturing, or its connection was lost.",
              "PandACapture_RBV says how the capture ended. Arm it again.", 0, "positions.bob"),
    ),
    MODEL: (
        Alarm("ModelState_RBV", "No model is live, or the one that was asked for could not be loaded.",
              "ModelMessage_RBV says why. Put a file into ModelFile and press LoadModel, or go back with "
              "RollbackModel.", 30, "model.bob"),
        Alarm("ModelRolledBack_RBV", "A new model was worse than the one before and was taken back.",
              "RollbackMessage_RBV tells of both. Look at the scan it was trained on, then AcknowledgeRollback.", 0,
              "model.bob"),
        Alarm("SSIMStatus_RBV", "The live phase differs from the reconstruction by more than the tolerance.",
              "Compare both images. A new kind of sample needs a training: Agent:Retrain.", 0, "model.bob"),
        Alarm("SigmaStatus_RBV", "The error of the live phase is large: the network is unsure of this sample.",
              "Look at the image PhaseSigma. A new kind of sample needs a training: Agent:Retrain. The limit is "
              "SigmaLimit.", 0, "images.bob"),
        Alarm("Refine:Status_RBV", "The refinement of the phase has stopped. The live phase goes on.",
              "Refine:Message_RBV says why.", 0, "model.bob"),
        Alarm("Refine:PositionStatus_RBV", "The positions were not corrected. Those that were given are used.",
              "Refine:PositionMessage_RBV says why.", 0, "refine.bob"),
        Alarm("Refine:AtBound_RBV", "Corrected positions are at their bound.",
              "Check the positions' unit, axes and calibration.", 0, "refine.bob"),
        Alarm("DroppedEngine_RBV", "The engine failed on frames.",
              "Choose another engine; a restart of the IOC frees a stuck accelerator.", 0, "model.bob"),
    ),
    SCANS: (
        Alarm("SaveStatus_RBV", "A finished canvas could not be saved. It is kept in memory.",
              "SaveMessage_RBV says why. Make room on the disk, or correct SaveDirectory, then SaveCanvas.", 0,
              "plugin.bob"),
        Alarm("CanvasesLost_RBV", "Finished canvases could not be saved and are gone.",
              "Repeat the scans, and see to the disk first.", 0, "plugin.bob"),
        Alarm("ScanPVState_RBV", "The PV that tells scans apart is not connected.",
              "Start the scan's IOC.", 5, "plugin.bob"),
    ),
    AGENT: (
        Alarm("Agent:Lost_RBV", "The agent does not answer any more. The live phase goes on with the model it has.",
              "Look at the agent's log and start it again.", 0, "agent.bob"),
        Alarm("Agent:State", "The agent is not at work.", "Agent:Message says why.", 60, "agent.bob"),
        Alarm("Agent:CommandStatus_RBV", "A command was given, and no agent is there to obey.",
              "Start the agent.", 0, "agent.bob"),
    ),
    HEALTH: (
        Alarm("AutosaveStatus_RBV", "Setpoints cannot be saved: a restart would lose them.",
              "Make room on the disk, or give the IOC's user the right to write there.", 60, "health.bob"),
        Alarm("AutosavePassedOver_RBV", "Saved setpoints did not fit and were not restored.",
              "AutosaveMessage_RBV lists them. Set them by hand.", 0, "health.bob"),
        Alarm("SYS_CPU_LOAD", "The machine has hardly any processor time left.",
              "End other programs, lower the frame rate, or set Decimation to Auto.", 60, "health.bob"),
        Alarm("MEM_FREE", "The machine has hardly any memory left.",
              "Keep fewer canvases (KeepCanvases), or end other programs.", 30, "health.bob"),
        Alarm("FD_FREE", "The IOC has hardly any file descriptors left: clients will be refused.",
              "Find the client that connects again and again. Raise the limit of open files.", 30, "health.bob"),
        Alarm("SUSP_TASK_CNT", "A thread of EPICS was suspended after an error: a part of the IOC does nothing more.",
              "Save the log and report it. Restart the IOC between two scans.", 0, "health.bob"),
        Alarm("CA_CLNT_CNT", "Very many Channel Access clients.", "Put a gateway before the IOC.", 60, "health.bob"),
    ),
}  # fmt: skip


def alarm_tree(prefix: str) -> str:
    """The tree as the alarm server imports it, for an IOC with this prefix."""
    root = ET.Element("config", {"name": "ptychostream"})
    ioc = ET.SubElement(root, "component", {"name": prefix.rstrip(":")})
    for group, alarms in ALARMS.items():
        component = ET.SubElement(ioc, "component", {"name": group})
        for alarm in alarms:
            _add(component, alarm, prefix)
    return document(root)


def _add(component: ET.Element, alarm: Alarm, prefix: str) -> None:
    pv = ET.SubElement(component, "pv", {"name": f"{prefix}{alarm.record}"})
    fields = {"description": alarm.meaning, "enabled": "true", "latching": "true", "annunciating": "false"}
    if alarm.delay_s:
        fields["delay"] = str(alarm.delay_s)
    for tag, text in fields.items():
        ET.SubElement(pv, tag).text = text
    for tag, title, text in (("guidance", "What to do", alarm.remedy), ("display", "Screen", _link(alarm, prefix))):
        entry = ET.SubElement(pv, tag)
        ET.SubElement(entry, "title").text = title
        ET.SubElement(entry, "details").text = text


def _link(alarm: Alarm, prefix: str) -> str:
    return f"{alarm.screen}?P={prefix}&R="
