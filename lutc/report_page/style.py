"""The page's style sheet."""

CSS = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#e3e5e1;--accent:#0b7a6f;
--accent-soft:#d9efeb;--int8:#4a68b8;--int8-soft:#e3e9f8;--fp32:#6b7280;--fp32-soft:#eceef0;--loss:#c2621b;
--loss-soft:#fbe9da;--bad:#b42318;--bad-soft:#fdecea;--code:#f3f4f1}
@media(prefers-color-scheme:dark){:root{--bg:#111417;--card:#181c20;--ink:#e7eaed;--soft:#9aa4ae;--line:#2a3036;
--accent:#43c6b5;--accent-soft:#123b37;--int8:#8fabf5;--int8-soft:#1f2b4a;--fp32:#a3adb8;--fp32-soft:#272d33;
--loss:#f0a05a;--loss-soft:#40291a;--bad:#ff8a80;--bad-soft:#431d1a;--code:#0c0f11}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:64rem;margin:0 auto;padding:3rem 1.25rem 4rem}
h1{font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;letter-spacing:-.02em;margin:.2rem 0 .6rem;
overflow-wrap:anywhere}
h2{font-size:1.25rem;letter-spacing:-.01em;margin:3rem 0 .35rem}
p{margin:.35rem 0 1rem;max-width:46rem}
.soft,.eyebrow{color:var(--soft)}
.eyebrow{font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;margin:0}
.lead{font-size:1.1rem;margin-bottom:1.6rem}
code,pre,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.875em}
pre{background:var(--code);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem;margin:.6rem 0 1rem;
overflow-x:auto;line-height:1.6;user-select:all}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.2rem,1fr));gap:.8rem;margin:0;padding:0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.8rem;padding:1rem 1.1rem}
.tile dt{color:var(--soft);font-size:.85rem}
.tile dd{margin:0}
.tile .value{font-size:1.9rem;line-height:1.25;font-weight:650;letter-spacing:-.02em}
.tile .note{font-size:.85rem;color:var(--soft)}
.tile.good .value{color:var(--accent)}
.tile.bad .value{color:var(--bad)}
.banner{border-radius:.8rem;padding:.8rem 1.1rem;margin:0 0 1.2rem;border:1px solid}
.banner.bad{background:var(--bad-soft);border-color:var(--bad);color:var(--bad)}
.banner.good{background:var(--accent-soft);border-color:var(--accent);color:var(--accent)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.8rem}
figure{margin:.8rem 0;padding:.8rem}
figure svg{display:block;width:100%;height:auto}
.narrow{display:none!important}
svg text{fill:var(--soft);font-size:12px;font-family:inherit}
svg .grid{stroke:var(--line);stroke-width:1}
svg .front{stroke:var(--accent);stroke-width:2;fill:none;opacity:.55;stroke-linejoin:round}
svg .limit{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4}
svg .limit-name{fill:var(--bad)}
svg .point{fill:var(--card);stroke:var(--soft);stroke-width:1.6}
svg .measured{fill:var(--soft)}
svg .chosen{fill:var(--accent);stroke:var(--card);stroke-width:2.5}
svg .label{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
svg .name{fill:var(--ink);font-weight:600}
svg .axis{fill:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.85rem;color:var(--soft);padding:.2rem .3rem 0}
.legend span::before{content:"";display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:.4rem;
border:1.6px solid var(--soft);vertical-align:-.06rem}
.legend .l-measured::before{background:var(--soft)}
.legend .l-chosen::before{background:var(--accent);border-color:var(--accent)}
.sort{position:absolute;opacity:0;pointer-events:none}
.sort+label{display:inline-block;border:1px solid var(--line);border-radius:2rem;padding:.1rem .8rem;font-size:.85rem;
cursor:pointer;margin:0 .25rem .6rem 0;color:var(--soft);background:var(--card)}
.sort:checked+label{background:var(--ink);color:var(--bg);border-color:var(--ink)}
.sort:focus-visible+label{outline:2px solid var(--accent);outline-offset:2px}
.by{font-size:.85rem;color:var(--soft);margin-right:.5rem}
.rows{display:flex;flex-direction:column}
.row{display:grid;gap:.25rem 1.1rem;padding:.75rem 1rem;border-top:1px solid var(--line);align-items:center;
grid-template-columns:minmax(11rem,2.4fr) 6.5rem repeat(var(--bars),minmax(5.5rem,1fr)) 4.2rem}
.row:first-child{border-top:0}
.head,.head .bar,.head .right{font-size:.8rem}
.head{color:var(--soft);padding-top:.55rem;padding-bottom:.55rem;order:-1}
.head+.row{border-top:1px solid var(--line)}
.layer{min-width:0}
.layer .mono{overflow-wrap:anywhere}
.why{font-size:.82rem;color:var(--soft);overflow-wrap:anywhere}
.right{text-align:right;font-size:.85rem}
.form{display:inline-block;border-radius:.4rem;padding:.08rem .5rem;font-size:.82rem;font-weight:600;
white-space:nowrap;background:var(--accent-soft);color:var(--accent)}
.form.int{background:var(--int8-soft);color:var(--int8)}
.form.fp32{background:var(--fp32-soft);color:var(--fp32)}
.bar{font-size:.85rem;min-width:0}
.track{position:relative;height:.5rem;border-radius:.25rem;background:var(--fp32-soft);margin-top:.15rem}
.track i{position:absolute;inset:0 auto 0 0;border-radius:.25rem;background:var(--accent);min-width:2px}
.track.int i{background:var(--int8)}
.track.fp32 i{background:var(--fp32)}
.track.loss i{background:var(--loss)}
.track b{position:absolute;top:-.2rem;bottom:-.2rem;width:2px;background:var(--ink)}
.whole{white-space:nowrap}
.what{display:none;color:var(--soft)}
details{grid-column:1/-1;font-size:.85rem;min-width:0}
summary{cursor:pointer;color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.5rem 0;font-size:.85rem;min-width:min(100%,28rem)}
th,td{padding:.25rem .8rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:500;color:var(--soft)}
th:first-child,td:first-child{text-align:left}
th.words{text-align:left}
td.words{white-space:normal;text-align:left;min-width:12rem}
tr.chosen td{font-weight:650;color:var(--accent)}
dl.facts{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.3rem 1.4rem;margin:.6rem 0}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:0 2.5rem}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media(max-width:44rem){main{padding:1.6rem 1rem 3rem}h2{margin-top:2.2rem}.wide{display:none!important}
.narrow{display:block!important}.head{display:none}.head+.row{border-top:0}
.row{grid-template-columns:1fr 1fr;gap:.4rem 1rem}.layer{grid-column:1/-1}.what{display:inline}.right{text-align:left}
.columns{grid-template-columns:minmax(0,1fr)}dl.facts{grid-template-columns:minmax(6rem,max-content) minmax(0,1fr)}
.tiles{grid-template-columns:1fr 1fr}.tile{padding:.75rem .85rem}.tile .value{font-size:1.5rem}figure{padding:.6rem}}
@media print{body{background:#fff}.sort+label,.by{display:none}.tile,.card{break-inside:avoid}}
"""
