// The page on which rows are reviewed. Everything of a row goes in as text, never as markup.

const key = location.hash.slice(1);
const element = (id) => document.getElementById(id);
let rows = [];
let at = 0;

async function call(path, body) {
  const request = { headers: { Authorization: `Bearer ${key}` } };
  if (body !== undefined) {
    request.method = "POST";
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", wrong);
}

function show() {
  const row = rows[at];
  element("edit").hidden = true;
  element("about").textContent = `${row.scope}, ${row.split}, ${row.kind}, ${row.instance}, ${row.attribute}`;
  element("question").textContent = row.question;
  element("answer").textContent = row.answer;
  element("note").value = row.note;
  const changed = [row.new_question, row.new_answer].filter(Boolean).join(" · ");
  element("verdict").textContent = row.verdict ? `Verdict: ${row.verdict}${row.verdict === "edit" ? `: ${changed}` : ""}` : "";
  const judged = rows.filter((one) => one.verdict).length;
  say(`Row ${at + 1} of ${rows.length}; ${judged} with a verdict.`);
}

function move(step) {
  at = Math.min(Math.max(at + step, 0), rows.length - 1);
  show();
}

function open() {
  const left = rows.findIndex((row, index) => index > at && !row.verdict);
  const any = left >= 0 ? left : rows.findIndex((row) => !row.verdict);
  if (any < 0) return say("Every row has a verdict. Merge the file with scopewise review BENCHMARK --merge.");
  at = any;
  show();
}

async function judge(verdict, texts = { new_question: "", new_answer: "" }) {
  const row = rows[at];
  const given = { row: row.row, verdict, note: element("note").value, ...texts };
  try {
    await call("/api/verdict", given);
    Object.assign(row, given);
    open();
  } catch (error) {
    say(error.message, true);
  }
}

function edit() {
  element("new_question").value = rows[at].new_question || rows[at].question;
  element("new_answer").value = rows[at].new_answer || rows[at].answer;
  element("edit").hidden = false;
  element("new_question").focus();
}

element("edit").addEventListener("submit", (event) => {
  event.preventDefault();
  const row = rows[at];
  const changed = (id, old) => (element(id).value === old ? "" : element(id).value);
  judge("edit", { new_question: changed("new_question", row.question), new_answer: changed("new_answer", row.answer) });
});
element("cancel").addEventListener("click", show);
const acts = {
  y: () => judge("yes"), n: () => judge("no"), e: edit, u: open, ArrowLeft: () => move(-1), ArrowRight: () => move(1),
};
for (const [id, name] of Object.entries({ yes: "y", no: "n", change: "e", back: "ArrowLeft", next: "ArrowRight", open: "u" }))
  element(id).addEventListener("click", () => acts[name]());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return show();
  if (event.ctrlKey || event.metaKey || event.altKey || /^(TEXTAREA|INPUT)$/.test(event.target.tagName)) return;
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

try {
  const found = await call("/api/rows");
  rows = found.rows;
  element("name").textContent = `${found.name}; verdicts are written to ${found.file}`;
  show();
} catch (error) {
  say(error.message, true);
}
