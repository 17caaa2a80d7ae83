"""How pages look: one column that fits a phone, light or dark as the reader's device is."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--text:#1d232b;--faint:#5d6773;--page:#f6f7f9;--card:#fff;--line:#dfe3e8;
--blue:#1f6fd1;--orange:#b45309;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--text:#e6e9ed;--faint:#9aa5b1;--page:#14181d;--card:#1d232a;--line:#343c46;
--blue:#6aa9f5;--orange:#f0a04b;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1rem;background:var(--page);color:var(--text);
font:1rem/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:1.75rem 0 .5rem}
p{margin:.4rem 0}.note,.tile small,figcaption{color:var(--faint);font-size:.875rem}
.phase{display:inline-block;padding:.1rem .6rem;border-radius:1rem;border:1px solid currentColor;font-size:.875rem;
margin:0 0 .4rem}
.training{color:var(--blue)}.stopped,.bad{color:var(--bad)}
progress{width:100%;height:.6rem;accent-color:var(--blue)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin-top:1rem}
.tile,figure{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem;margin:0}
.tile b{display:block;font-size:1.35rem}.tile small{display:block}.tile span{font-size:.875rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:.75rem;margin-top:.75rem}
.plot{display:grid;grid-template:1fr auto auto/auto 1fr auto;column-gap:.5rem;margin-top:.5rem;
color:var(--faint);font-size:.75rem}
.top{grid-area:1/1}.zero{grid-area:2/1;text-align:right}.plot svg{grid-area:1/2/3/4;width:100%;height:8rem;
border-left:1px solid var(--line);border-bottom:1px solid var(--line);overflow:visible}
.first{grid-area:3/2}.last{grid-area:3/3}
path{fill:none;stroke-width:2;stroke-linecap:round;stroke-linejoin:round;vector-effect:non-scaling-stroke}
path.seen{stroke:var(--blue)}path.expected{stroke:var(--orange);stroke-dasharray:5 4}path.limit{stroke:var(--line)}
.key::before{content:"";display:inline-block;width:1.1rem;border-top:3px solid var(--line);vertical-align:.25em;
margin:0 .3rem 0 .6rem}
.key.seen::before{border-color:var(--blue)}.key.expected::before{border-top:3px dashed var(--orange)}
.bar{width:5.5rem;height:.7rem;vertical-align:middle}.bar path{stroke:var(--faint);stroke-width:3}
.bar .limit{stroke:var(--line);stroke-width:2}.bar .mark{stroke:var(--blue);stroke-width:7}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{padding:.35rem .6rem;text-align:left;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--faint);font-weight:600}
td:last-child{white-space:normal;min-width:9rem;overflow-wrap:anywhere}
summary{cursor:pointer;margin:1rem 0 .5rem}
"""
