"""CSS of the page, for screens of any width and for print."""

CSS = """
:root { --ink: #22272e; --soft: #626b76; --line: #e3e6ea; --paper: #ffffff; --ground: #f5f6f8;
  --blue: #2563a8; --pass: #2b7a4b; --warn: #a96a08; --fail: #b3362b;
  --pass-ground: #e6f3ea; --warn-ground: #fbf0da; --fail-ground: #fae5e2; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }
header p { margin: 0; color: var(--soft); max-width: none; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; font-weight: 650; }
h2 { font-size: 19px; margin: 0 0 4px; font-weight: 650; }
h2 a { color: inherit; text-decoration: none; }
a { color: var(--blue); }
p { margin: 6px 0 12px; max-width: 78ch; }
.lead { color: var(--soft); }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 24px; margin: 20px 0; }
.tiles { display: flex; gap: 12px; margin: 20px 0 0; flex-wrap: wrap; }
.tile { flex: 1 1 120px; border-radius: 10px; padding: 12px 18px; }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-weight: 650; }
.pass { color: var(--pass); background: var(--pass-ground); }
.warn { color: var(--warn); background: var(--warn-ground); }
.open { color: #555; background: #eee; }
.fail { color: var(--fail); background: var(--fail-ground); }
.none { color: var(--soft); background: #e9ebee; }
.pill { display: inline-block; min-width: 46px; text-align: center; border-radius: 20px;
  padding: 1px 10px; font-size: 12px; font-weight: 600; letter-spacing: .02em; }
.summary { font-size: 17px; font-weight: 600; margin: 18px 0 0; max-width: none; }
nav { font-size: 14px; margin: 16px 0 0; }
nav a { text-decoration: none; margin-right: 14px; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 10px 0 14px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 0 0 4px; font-size: 13.5px; }
th, td { text-align: right; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
table.verdicts { width: 100%; }
table.verdicts td, table.verdicts th { text-align: left; white-space: normal; }
table.verdicts td.limit { color: var(--soft); white-space: nowrap; }
table.verdicts td.value { min-width: 230px; }
table.verdicts tr.group td { padding-top: 14px; font-weight: 600; border-bottom-color: #c9ced6; }
table.verdicts tr.more td { padding-top: 0; }
table.words th, table.words td { white-space: normal; text-align: left; overflow-wrap: anywhere; }
table.words td:first-child { min-width: 190px; color: var(--soft); }
ul.look { list-style: none; padding: 0; margin: 8px 0 0; } ul.look li { margin: 4px 0; }
.why { color: var(--soft); font-size: 12.5px; display: block; }
figure { margin: 12px 0 16px; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13.5px; max-width: 90ch; margin-top: 4px; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--blue); font-size: 14px; }
.missing { border-left: 3px solid var(--warn); padding: 6px 12px; background: var(--warn-ground);
  color: var(--ink); border-radius: 0 6px 6px 0; }
footer { color: var(--soft); font-size: 13px; }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; } .card { padding: 14px 14px; border-radius: 8px; }
  .tile { padding: 8px 12px; } .tile b { font-size: 22px; }
  table.verdicts td.limit, table.verdicts th.limit { display: none; }
  table.verdicts td.value { min-width: 0; }
}
@media print {
  body { background: #fff; font-size: 11pt; } main { max-width: none; padding: 0; }
  .card { border: none; padding: 0; } nav { display: none; }
  figure, tr, .tile { break-inside: avoid; } h2 { break-after: avoid; }
  .pill, .tile { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
