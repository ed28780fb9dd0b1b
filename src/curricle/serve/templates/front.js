"use strict";
(() => {
  const by = id => document.getElementById(id);
  const percent = share => (share < 0.001 ? "< 0.1" : share > 0.999 ? "> 99.9" : (100 * share).toFixed(1)) + " %";
  const make = (name, className, ...inside) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...inside); // texts stay texts
    return node;
  };
  const fail = async answer => {
    let said = "";
    try { said = (await answer.json()).error; } catch { said = answer.statusText; }
    throw new Error(said || "status " + answer.status);
  };
  const call = async (path, options = {}) => {
    let answer;
    try { answer = await fetch(path, options); } catch { throw new Error("the server does not answer; is it still running?"); }
    return answer.ok ? answer : fail(answer);
  };
  const post = async (path, body, headers = {}) => (await call(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) })).json();
  const say = (id, text, wrong) => { const box = by(id); box.textContent = text; box.classList.toggle("wrong", !!wrong); };

  // A question
  const text = by("ask-text"), hits = by("hits");
  const clear = () => { // what was answered to another text
    if (hits) { hits.replaceChildren(); mark([], 0, null); } else { last = null; by("found").hidden = true; }
  };
  let turn = 0;
  const ask = async () => {
    const mine = ++turn, asked = text.value.trim();
    if (!asked) { say("ask-said", "Type a text first."); text.focus(); return; }
    by("ask-go").disabled = true;
    say("ask-said", "asking …");
    const began = performance.now();
    try {
      const answer = hits ? await post("v1/search", { texts: [asked], top: +by("ask-top").value, explain: true, place: !!by("disc-canvas") }) : await post("v1/predict", { texts: [text.value] });
      if (mine !== turn) return;
      say("ask-said", `${Math.round(performance.now() - began)} ms`);
      (hits ? showHits : showSpans)(answer.results[0]);
    } catch (error) {
      if (mine === turn) { say("ask-said", error.message, true); clear(); }
    } finally {
      if (mine === turn) by("ask-go").disabled = false;
    }
  };
  by("ask-form").addEventListener("submit", event => { event.preventDefault(); ask(); });
  text.addEventListener("keydown", event => { if (event.key === "Enter" && (hits ? !event.shiftKey : event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); } });

  // Codes
  const mark = (all, chosen, text) => document.dispatchEvent(new CustomEvent("disc-marks", { detail: { marks: all.filter(hit => hit.code !== null).map(hit => ({ way: hit.path.map(step => step.code).reverse(), share: hit.confidence })), chosen, text } }));
  const showHits = result => {
    let number = -1;
    hits.replaceChildren(...result.hits.map(hit => {
      const line = make("div", "hit", make("span", "", make("b", "", hit.code === null ? "–" : hit.code), hit.title), make("span", "sure", percent(hit.confidence)));
      const meter = document.createElement("meter");
      meter.max = 1;
      meter.value = hit.confidence;
      meter.setAttribute("aria-label", "probability");
      line.append(meter);
      const box = make("li", "", line);
      if (hit.code === null) return box;
      const place = ++number;
      box.append(make("p", "way", hit.path.slice(0, -1).map(step => `${step.code} ${step.title}`).join(" › ")));
      const disc = by("disc-canvas");
      if (disc) {
        const button = make("button", "place", "show its place");
        button.type = "button";
        button.addEventListener("click", () => {
          for (const other of hits.children) other.classList.toggle("chosen", other === box);
          mark(result.hits, place, result.place);
          if (matchMedia("(max-width: 899px)").matches) disc.scrollIntoView({ block: "center" });
        });
        box.append(button);
        if (!place) box.classList.add("chosen");
      }
      if (hit.reasons) box.append(why(hit.reasons));
      return box;
    }));
    mark(result.hits, 0, result.place);
  };
  const why = reasons => {
    const list = make("dl", "");
    const add = (name, lines) => { if (lines.length) list.append(make("dt", "", name), ...lines.map(line => make("dd", "", line))); };
    add("like these texts of the training", reasons.neighbours.map(near => `${percent(near.share)}  ${near.text}${near.words.length ? ` [${near.words.join(", ")}]` : ""}`));
    add("words that speak for it", reasons.words.length ? [reasons.words.map(([word]) => word).join(", ")] : []);
    add("may belong elsewhere", reasons.elsewhere.map(other => `excluded from ${other.source}: ${other.text} (see ${other.code} ${other.title})`));
    return make("details", "", make("summary", "", "why"), list.children.length ? list : make("p", "note", "Nothing in the training is near: it is known by its place alone."));
  };

  // Entities
  let last = null;
  const colours = new Map();
  const colour = label => { if (!colours.has(label)) colours.set(label, colours.size % 6); return "s" + colours.get(label); };
  const showSpans = result => {
    last = result;
    const least = +by("least").value / 100, letters = Array.from(result.text); // offsets count characters, not halves of them
    const kept = result.spans.filter(span => span.score >= least);
    by("found").hidden = false;
    by("least-said").textContent = by("least").value + " %";
    const parts = [];
    let at = 0;
    for (const span of kept.slice().sort((a, b) => a.start - b.start || b.end - a.end)) {
      if (span.start < at) continue;
      const box = make("mark", colour(span.label), letters.slice(span.start, span.end).join(""), make("small", "", `${span.label} ${percent(span.score)}`));
      parts.push(letters.slice(at, span.start).join(""), box);
      at = span.end;
    }
    by("marked").replaceChildren(...parts, letters.slice(at).join(""));
    by("labels").replaceChildren(...[...new Set(kept.map(span => span.label))].map(label => make("li", "", make("span", "swatch " + colour(label)), `${label} `, make("b", "", String(kept.filter(span => span.label === label).length)))));
    const cell = (content, number) => make("td", number ? "n" : "", content);
    by("spans").replaceChildren(...kept.map(span => make("tr", "", cell(span.text), cell(span.label), cell(percent(span.score), true), cell(`${span.start}–${span.end}`, true))));
    if (!kept.length) by("spans").replaceChildren(make("tr", "", make("td", "note", result.spans.length ? "none is that sure" : "none found")));
  };
  if (by("least")) by("least").addEventListener("input", () => { if (last) showSpans(last); });

  // A table
  const form = by("table-form");
  if (!form) return;
  const file = by("file"), drop = by("drop"), kinds = { tab: "tsv", txt: "csv", ndjson: "jsonl" };
  let table = null, brought = 0; // a table stays, with what came of it, until another one is taken
  const auth = () => ({ Authorization: "Bearer " + table.key });
  const sleep = time => new Promise(done => setTimeout(done, time));
  const bring = async chosen => {
    const mine = ++brought, ending = chosen.name.split(".").pop().toLowerCase(), kind = kinds[ending] || ending;
    let taken;
    if (!["csv", "tsv", "jsonl", "xlsx"].includes(kind)) { say("file-said", `${chosen.name}: a file that ends in .${ending} is not read here; bring CSV, TSV, JSON Lines or XLSX.`, true); return; }
    say("file-said", `${chosen.name} is on its way …`);
    try {
      taken = await (await call("v1/tables?kind=" + kind, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: chosen })).json();
    } catch (error) { if (mine === brought) say("file-said", `${chosen.name}: ${error.message}`, true); return; }
    if (mine !== brought) return;
    reset();
    table = { ...taken, kind, name: chosen.name.replace(/\.[^.]*$/, "") };
    by("recognised").textContent = `${chosen.name}: ${table.said}`;
    by("head").replaceChildren(make("tr", "", ...table.columns.map(column => make("th", "", column))));
    by("sample").replaceChildren(...table.sample.map(row => make("tr", "", ...row.map(value => make("td", "", value)))));
    by("column").replaceChildren(...table.columns.map((column, i) => { const option = make("option", "", column || `column ${i + 1}`); option.value = i; return option; }));
    const lengths = table.columns.map((_, i) => table.sample.reduce((sum, row) => sum + (/[a-z]/i.test(row[i]) ? row[i].length : 0), 0));
    by("column").value = lengths.indexOf(Math.max(...lengths)); // the longest texts
    colourColumn();
    by("order").hidden = by("forget").hidden = false;
  };
  const colourColumn = () => { for (const row of by("sample").rows) [...row.cells].forEach((one, i) => one.classList.toggle("text", i === +by("column").value)); };
  by("column").addEventListener("change", colourColumn);
  const reset = () => {
    table = null;
    for (const id of ["order", "bar", "save", "save-rejects", "forget"]) by(id).hidden = true;
    by("notes").replaceChildren();
    say("file-said", "");
    say("table-said", "");
  };
  const follow = async () => {
    const mine = table, began = performance.now();
    for (;;) {
      const now = await (await call("v1/tables/" + mine.id, { headers: auth() })).json();
      if (table !== mine) return;
      by("bar").hidden = false;
      by("bar").value = now.total ? now.done / now.total : 0;
      by("notes").replaceChildren(...now.notes.map(note => make("li", "", note)));
      const seconds = (performance.now() - began) / 1000, left = now.done ? Math.round(seconds / now.done * (now.total - now.done)) : 0;
      if (now.state === "failed") throw new Error(now.error);
      if (now.state === "done") {
        const all = now.result, count = number => number.toLocaleString("en");
        say("table-said", `${count(all.rows)} ${all.rows === 1 ? "row" : "rows"}: ${count(all.coded)} coded, ${count(all.review)} for a person to look at${all.without ? `, ${count(all.without)} of them without a code` : ""}${all.bad ? `; ${count(all.bad)} more ${all.bad === 1 ? "is no row" : "are no rows"}` : ""}.`);
        by("bar").value = 1;
        by("save").hidden = false;
        by("save-rejects").hidden = !all.bad;
        return;
      }
      say("table-said", now.state === "waiting" ? "waits for another table" : `${now.done.toLocaleString("en")} of ${now.total.toLocaleString("en")} rows${left > 1 ? `, about ${left} s left` : ""}`);
      await sleep(400);
    }
  };
  form.addEventListener("submit", async event => {
    event.preventDefault();
    if (!table) return;
    const [rule, value] = by("rule").value.split(":");
    const order = { column: String(+by("column").value + 1), top: +by("table-top").value, explain: by("table-explain").checked };
    if (rule) order[rule] = +value;
    if (table.columns.includes(order.column)) order.column = table.columns[+by("column").value]; // a name that looks like a number goes before it
    by("table-go").disabled = true;
    by("save").hidden = by("save-rejects").hidden = true;
    say("table-said", "begins …");
    try { await post(`v1/tables/${table.id}/assign`, order, auth()); await follow(); } catch (error) { say("table-said", error.message, true); } finally { by("table-go").disabled = false; }
  });
  const save = async (part, as) => {
    try {
      const content = await (await call(`v1/tables/${table.id}/${part}`, { headers: auth() })).blob(), link = document.createElement("a");
      link.href = URL.createObjectURL(content);
      link.download = as;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) { say("table-said", error.message, true); }
  };
  by("save").addEventListener("click", () => save("output", `${table.name}-coded.${table.kind}`));
  by("save-rejects").addEventListener("click", () => save("rejects", `${table.name}-rejects.csv`));
  by("forget").addEventListener("click", async () => {
    try { await call("v1/tables/" + table.id, { method: "DELETE", headers: auth() }); } catch { /* it is gone already */ }
    file.value = "";
    reset();
    say("table-said", "It is forgotten.");
  });
  const take = chosen => { if (chosen) bring(chosen); };
  file.addEventListener("change", () => take(file.files[0]));
  for (const kind of ["dragover", "dragenter"]) drop.addEventListener(kind, event => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", event => { event.preventDefault(); take(event.dataTransfer.files[0]); });
})();
