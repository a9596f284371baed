"use strict";
// What data and models wrote is set as text (textContent), never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (name, text, className) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const fill = (select, options) => {
    select.replaceChildren(...options.map(([value, text]) => {
      const option = make("option", text);
      option.value = value;
      return option;
    }));
  };

  // -- light and dark -------------------------------------------------------------------------------------------
  const theme = byId("theme");
  const dark = () => document.documentElement.dataset.theme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const named = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    named();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
  named();

  // Printed whole: what is folded would be missing.
  const opened = [];
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => { d.open = true; opened.push(d); }));
  addEventListener("afterprint", () => opened.splice(0).forEach((d) => { d.open = false; }));

  // -- tables ---------------------------------------------------------------------------------------------------
  const order = (table, column, direction) => {
    const value = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.value ?? cell.textContent.trim();
      const number = Number.parseFloat(text);
      return Number.isNaN(number) || cell.tagName === "TH" ? text : number;
    };
    const known = (v) => v !== "–" && v !== "n/a" && v !== "";
    const rows = [...table.tBodies[0].rows].map((row, i) => [value(row), i, row]);
    rows.sort(([a, i], [b, j]) => {
      if (known(a) !== known(b)) return known(a) ? -1 : 1; // what is missing stands last in either direction
      const by = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return by * direction || i - j;
    });
    table.tBodies[0].append(...rows.map(([, , row]) => row));
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      order(table, column, up ? 1 : -1);
    }));
  });

  // -- instances ------------------------------------------------------------------------------------------------
  const instances = byId("instance-table");
  if (instances) {
    const which = byId("instance-run");
    const method = byId("instance-method");
    const runs = data.instances.map((found, i) => [i, found]).filter(([, found]) => found.names);
    const current = () => data.instances[which ? which.value : runs[0][0]];
    const shown = (v) => (v === null || v === undefined ? "–" : v.toFixed(1));
    const show = () => {
      const found = current();
      const role = (name) => found.models.find((m) => m.role === name);
      const [before, oracle, after] = [role("target"), role("oracle"), found.models[method.value]];
      let remembered = 0;
      let damaged = 0;
      const rows = found.names.map((name, i) => {
        const at = (model, scope) => (model ? model.values[i][scope] : null);
        const findings = [];
        if (at(after, 0) !== null && at(oracle, 0) !== null && at(oracle, 0) - at(after, 0) > 10) { findings.push("remembered"); remembered += 1; }
        if (at(after, 1) !== null && at(before, 1) !== null && at(before, 1) - at(after, 1) > 10) { findings.push("damaged"); damaged += 1; }
        const row = make("tr");
        const head = make("th", name);
        head.scope = "row";
        row.append(head);
        [0, 1].forEach((scope) => {
          row.append(make("td", String(found.rows[i][scope]), "figure"));
          [before, after, oracle].forEach((model) => row.append(make("td", shown(at(model, scope)), "figure")));
        });
        row.append(make("td", findings.join(", "), findings.length ? "bad" : ""));
        return row;
      });
      instances.tBodies[0].replaceChildren(...rows);
      byId("instance-summary").textContent = `${after.label}: of ${found.names.length} instances ${remembered} remembered, ${damaged} damaged.`;
      [...instances.tHead.rows[0].cells].forEach((head) => head.removeAttribute("aria-sort"));
    };
    const methods = () => {
      const options = current().models.map((m, i) => [i, m.label, m.role]);
      fill(method, options.filter(([, , r]) => r === "unlearned").concat(options.filter(([, , r]) => r !== "unlearned")));
      show();
    };
    if (which) {
      fill(which, runs.map(([i]) => [i, data.questions.runs[i]]));
      which.addEventListener("change", methods);
    }
    method.addEventListener("change", show);
    methods();
  }

  // -- questions ------------------------------------------------------------------------------------------------
  const list = byId("list");
  if (!list) return;
  const { rows, models, cells, texts } = data.questions;
  const several = data.questions.runs.length > 1;
  const PER_PAGE = 25;
  const EDGES = [0.02, 0.1, 0.3, 0.6, 0.9, 0.98]; // where one shade of probability ends and the next begins
  const label = (i) => (several ? `${models[i].run}: ${models[i].label}` : models[i].label);
  const words = (model, row) => {
    const packed = cells[model].words[row];
    return packed === null ? null : Array.from({ length: packed.length / 2 }, (_, i) => Number.parseInt(packed.slice(2 * i, 2 * i + 2), 16) / 255);
  };
  const mean = (model, row) => {
    const found = model === undefined ? null : words(model, row);
    return found && found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
  };
  const of = (run, role) => {
    const i = models.findIndex((m) => m.run === run && m.role === role);
    return i < 0 ? undefined : i;
  };
  const chosen = ["scope", "split", "instance", "attribute"];
  const keys = { scope: "s", split: "p", instance: "i", attribute: "a" };
  const unlearned = models.map((m, i) => [i, label(i), m.role]);
  const first = unlearned.filter(([, , r]) => r === "unlearned");
  fill(byId("after"), first.length ? first : unlearned);
  fill(byId("beside"), [["", "none"], ...first]);
  chosen.forEach((name) => {
    const values = [...new Set(rows.map((row) => row[keys[name]]))].filter(Boolean).sort((a, b) => a.localeCompare(b));
    fill(byId(name), [["", "all"], ...values.map((v) => [v, v])]);
    byId(name).closest("label").hidden = values.length < 2;
  });
  byId("beside").closest("label").hidden = first.length < 2;
  const searched = rows.map((row, i) => [row.q, row.h || row.w.join(""), row.i, ...cells.map((c) => (c.texts[i] === null ? "" : texts[c.texts[i]]))].join("\n").toLowerCase());

  const coloured = (row, model) => {
    const line = make("div", undefined, "words");
    const found = words(model, row);
    rows[row].w.forEach((word, i) => {
      const space = word.length - word.trimStart().length;
      if (space || (rows[row].h && i)) line.append(document.createTextNode(" "));
      const span = make("span", word.slice(space), `p${EDGES.filter((edge) => found[i] >= edge).length}`);
      span.title = `${(100 * found[i]).toFixed(0)} %`;
      line.append(span);
    });
    return line;
  };
  const answer = (name, model, row) => {
    const line = make("div", undefined, "answer");
    const head = make("b", name);
    const body = make("div");
    const found = model === undefined ? null : words(model, row);
    if (found === null) body.append(make("span", "not measured", "muted"));
    else {
      head.append(make("small", `mean probability ${(100 * mean(model, row)).toFixed(0)} %`));
      body.append(coloured(row, model));
      const text = cells[model].texts[row];
      if (text !== null) body.append(make("p", texts[text], "quote"));
    }
    line.append(head, body);
    return line;
  };
  const card = (row, shown) => {
    const node = make("article", undefined, "card");
    node.append(make("h3", rows[row].q || "(plain text)"));
    const tags = make("div");
    ["s", "p", "i", "a"].forEach((key) => {
      if (rows[row][key]) tags.append(make("span", rows[row][key], `tag ${key === "s" ? rows[row][key] : ""}`));
    });
    node.append(tags);
    const truth = make("div", undefined, "answer");
    truth.append(make("b", "truth"), make("div", rows[row].h || rows[row].w.join("").trim()));
    node.append(truth, ...shown.map(([name, model]) => answer(name, model, row)));
    return node;
  };

  let page = 0;
  const show = () => {
    const after = Number(byId("after").value);
    const beside = byId("beside").value;
    const run = models[after].run;
    const before = of(run, "target");
    const shown = [["before", before], [label(after), after]];
    if (beside !== "" && !byId("beside").closest("label").hidden) shown.push([label(beside), Number(beside)]);
    shown.push(["oracle", of(run, "oracle")]);
    const wanted = byId("search").value.trim().toLowerCase();
    let found = rows.map((_, i) => i).filter((i) => cells[after].words[i] !== null
      && chosen.every((name) => !byId(name).value || rows[i][keys[name]] === byId(name).value)
      && (!wanted || searched[i].includes(wanted)));
    const by = byId("order").value;
    if (by !== "data") {
      const size = (i) => (by === "known" ? mean(after, i) : Math.abs((mean(after, i) ?? 0) - (mean(before, i) ?? 0)));
      found = found.map((i) => [size(i), i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]).map(([, i]) => i);
    }
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    page = Math.min(page, pages - 1);
    list.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((row) => card(row, shown)));
    byId("count").textContent = `${found.length} of ${rows.length} questions`;
    byId("page-number").textContent = `page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
  };
  const anew = () => { page = 0; show(); };
  ["after", "beside", "order", ...chosen].forEach((id) => byId(id).addEventListener("change", anew));
  byId("search").addEventListener("input", anew);
  document.querySelectorAll("form.controls").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  [["previous", -1], ["next", 1]].forEach(([id, by]) => byId(id).addEventListener("click", () => {
    page += by;
    show();
    list.scrollIntoView();
  }));
  show();
})();
