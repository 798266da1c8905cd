// The accounting as a picture: two bars of one length, received above its parts.

import { make, number } from "./format.js";
import { DROPPED_GROUP, LAW, MISSED, PENDING, RECEIVED, STITCHED } from "./names.js";

const count = (records, name) => (typeof records[name]?.[0] === "number" ? records[name][0] : 0);

export function drawAccounting(box, records, entries) {
  if (!records[RECEIVED]) {
    box.replaceChildren(make("p", "no frame has been counted yet"));
    return;
  }
  const received = count(records, RECEIVED), dropped = Object.values(entries).filter((one) => one.group === DROPPED_GROUP)
    .map((one) => [one.about.replace("Dropped: ", ""), count(records, one.name)]).filter(([, many]) => many > 0);
  const parts = [["stitched", count(records, STITCHED)], ["pending", count(records, PENDING)], ...dropped];
  const sum = parts.reduce((total, [, many]) => total + many, 0), most = Math.max(received, sum, 1);
  const bar = (pieces) => {
    const made = make("div", "", "bar");
    made.append(...pieces.map(([, many], k) => {
      const piece = make("i", "", `c${pieces.length === 1 ? 5 : k < 2 ? k : 2 + ((k - 2) % 5)}`);
      piece.style.width = `${(100 * many) / most}%`;
      return piece;
    }));
    return made;
  };
  const legend = make("div", "", "parts");
  legend.append(...parts.map(([word, many], k) => make("span", `${number(many)} ${word}`, `c${k < 2 ? k : 2 + ((k - 2) % 5)}`)));
  const law = make("div", "", "law-row"), holds = records[LAW]?.[1] === 0 && received === sum;
  const off = received - sum;
  law.append(make("strong", `${number(received)} received`),
    make("span", holds ? "● the sum is right" : records[LAW]?.[1] ? `■ off by ${number(off)} frames` : "● counting", holds || !records[LAW]?.[1] ? "sev0" : "sev2"));
  const missed = count(records, MISSED);
  box.replaceChildren(law, bar([["received", received]]), bar(parts), legend);
  if (missed) box.append(make("p", `▲ ${number(missed)} frame ids never arrived`, "sev1"));
}
