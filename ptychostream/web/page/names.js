// The records that have a place of their own on the page. All others are in the table at its end.
// A test holds these names against the catalogue of records.

// Lamps: record and what is said when all is well.
export const LAMPS = [
  ["Ready_RBV", "Plugin"], ["Connected_RBV", "Detector"], ["ModelState_RBV", "Model"], ["Accounting_RBV", "Accounting"],
  ["Contradicts_RBV", "Frames contradict"], ["SSIMStatus_RBV", "SSIM"], ["Agent:State", "Agent"],
  ["Agent:Lost_RBV", "Agent lost"], ["ModelRolledBack_RBV", "Model rolled back"],
];

// Figures: records, title, digits.
export const FIGURES = [
  ["ScanID_RBV", "Scan"], ["FramesStitched_RBV", "Stitched"], ["OutputRate_RBV", "Rate", 0],
  ["LatencyP95_RBV", "Latency, 95 %", 0], ["SSIM_RBV", "SSIM", 3], ["RFactor_RBV", "R factor", 3],
  ["DoseScale_RBV", "Dose scale", 2], ["MeanCounts_RBV", "Counts a frame", 0], ["QueueUse_RBV", "Queue", 0],
  ["EngineName_RBV", "Engine"], ["ScanProgress_RBV", "Scan done", 0], ["ModelAge_RBV", "Age of the model", 0],
];
export const WIDE_FIGURES = [
  ["ModelVersion_RBV", "Model"], ["StatusMessage_RBV", "Status"], ["Agent:Message", "Agent"],
  ["Consumers_RBV", "Cluster"],
];
// Figures of a cluster: shown where there is one.
export const CLUSTER = [["ConsumersLive_RBV", "Consumers", 0], ["ConsumersMissing_RBV", "Missing", 0]];

export const RECEIVED = "FramesReceived_RBV";
export const STITCHED = "FramesStitched_RBV";
export const PENDING = "FramesPending_RBV";
export const MISSED = "FramesMissed_RBV";
export const LAW = "Accounting_RBV";
export const DROPPED_GROUP = "dropped"; // every record of this group is a cause

// Trends: title, unit, and records with the word for each.
export const TRENDS = [
  ["SSIM", "", [["SSIM_RBV", "compared"], ["Agent:SSIM", "by the agent"]]],
  ["Rate", "frames/s", [["ArrayRate_RBV", "received"], ["OutputRate_RBV", "stitched"]]],
  ["Latency, 95 %", "ms", [["LatencyP95_RBV", "canvas"], ["LatencyServedP95_RBV", "image"]]],
];
export const ZERO_IS_NONE = ["Agent:SSIM"];

// The lanes of the time line.
export const LANES = [
  ["ScanID_RBV", "scan"], ["ModelVersion_RBV", "model"], ["ModelState_RBV", "slot"], ["Agent:State", "agent"],
  ["Agent:Policy_RBV", "policy"],
];
