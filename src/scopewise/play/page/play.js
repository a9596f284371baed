// The playground's page. Everything a model, a row or the server says goes in as text, never as markup.

const key = location.hash.slice(1);
const element = (id) => document.getElementById(id);
const ROLES = { target: "Target", unlearned: "Unlearned", oracle: "Oracle" };
const NUMBERS = ["temperature", "top_p", "max_new_tokens", "seed"];
let run = null;
let asking = null; // what stops the question under way
let cards = {};
let asked = { question: "", truth: "" }; // of the question under way

async function call(path, body, signal) {
  const request = { headers: { Authorization: `Bearer ${key}` }, signal };
  if (body !== undefined) {
    request.method = "POST";
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", wrong);
}

function option(text, value = text) {
  const made = document.createElement("option");
  made.textContent = text;
  made.value = value;
  return made;
}

// The result of a deletion request, in the words of its page: a word and a shape, never a color alone.
function showResult(result) {
  const section = element("result");
  section.hidden = !result;
  if (!result) return;
  section.classList.add(result.color);
  section.querySelector(".word").textContent = `${result.shape} ${result.word}`;
  section.querySelector(".sentence").textContent = result.sentence;
  const lights = result.lights.map((light) => {
    const item = document.createElement("li");
    const color = document.createElement("b");
    item.className = light.color;
    color.textContent = `${light.shape} ${light.color}`;
    item.append(`${light.title} `, color, ` ${light.result}`);
    return item;
  });
  section.querySelector("ul").replaceChildren(...lights);
  element("example-label").textContent = "Question of the request";
}

function showRun() {
  element("run").textContent = run.run;
  showResult(run.result);
  element("unlearned").replaceChildren(...run.unlearned.map((name) => option(name)));
  element("domain").value = run.domain;
  const groups = { forget: "Forget scope", retain: "Retain scope" };
  element("example").append(option("…", ""));
  for (const [scope, title] of Object.entries(groups)) {
    const group = document.createElement("optgroup");
    group.label = title;
    run.examples.forEach((row, index) => {
      if (row.scope === scope) group.append(option(row.question, String(index)));
    });
    element("example").append(group);
  }
  element("example").disabled = run.examples.length === 0;
  element("no-examples").hidden = !run.no_examples;
  element("no-examples").textContent = run.no_examples && `No examples: ${run.no_examples}`;
  if (!run.oracle && !run.result) say("This run has no oracle, so you cannot see what a model that never saw the facts would answer.");
}

function showTruth() {
  const row = run?.examples.find((one) => one.question === element("question").value);
  element("truth").hidden = !row;
  element("truth-text").textContent = row ? row.answer : "";
}

function chooseExample() {
  const row = run.examples[Number(element("example").value)];
  if (element("example").value === "" || !row) return;
  element("question").value = row.question;
  element("domain").value = row.domain;
  showTruth();
}

function percent(probability) {
  return probability >= 0.001 ? `${(100 * probability).toFixed(1)} %` : "under 0.1 %";
}

function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll(" ", "␣") || "(part of a character)";
}

function band(probability) {
  return `p${[0.05, 0.2, 0.5, 0.9].filter((least) => probability >= least).length}`;
}

// A column: heading, tokens, what is known of the token pointed at, the button.
function makeCard(role, model) {
  const card = element("card").content.cloneNode(true).firstElementChild;
  card.querySelector("h2").textContent = ROLES[role];
  card.querySelector(".model").textContent = model === role ? "" : model;
  const answer = card.querySelector(".answer");
  answer.setAttribute("aria-label", `Answer of the ${ROLES[role].toLowerCase()}`);
  card.dataset.role = role;
  const made = { card, answer, tokens: [], here: -1, leak: card.querySelector(".leak") };
  answer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || made.tokens.length === 0) return;
    event.preventDefault();
    point(made, Math.min(Math.max(made.here + step, 0), made.tokens.length - 1));
  });
  answer.addEventListener("mouseover", (event) => {
    const index = made.tokens.findIndex((token) => token.span === event.target);
    if (index >= 0) point(made, index);
  });
  return made;
}

function point(column, index) {
  column.tokens[column.here]?.span.classList.remove("here");
  column.here = index;
  const { span, token } = column.tokens[index];
  span.classList.add("here");
  const others = token.others.map((other) => `${visible(other.text)} ${percent(other.probability)}`).join("   ");
  column.card.querySelector(".detail").textContent =
    `${visible(token.text)} ${percent(token.probability)}\nMost probable: ${others}`;
}

// The words of a text that can tell something: of three letters or more, or with a digit.
function words(text) {
  const found = [...text.matchAll(/[\p{L}\p{N}_]+/gu)].filter(([word]) => word.length > 2 || /\p{N}/u.test(word));
  return found.map((match) => ({ word: match[0].toLowerCase(), start: match.index, end: match.index + match[0].length }));
}

// Mark the tokens of an answer that are part of a word of the true answer which the question does not have.
function markTold(column) {
  const known = new Set(words(column.question).map(({ word }) => word));
  const told = new Set(words(column.truth).map(({ word }) => word).filter((word) => !known.has(word)));
  const found = words(column.tokens.map(({ token }) => token.text).join("")).filter(({ word }) => told.has(word));
  let start = 0;
  for (const { span, token } of column.tokens) {
    const end = start + token.text.length;
    const inside = found.some((word) => word.start < end && word.end > start);
    span.classList.toggle("told", inside);
    start = end;
  }
}

function addToken(column, token) {
  const span = document.createElement("span");
  span.className = `token ${band(token.probability)}`;
  span.textContent = token.text;
  column.answer.append(span);
  column.tokens.push({ span, token });
  if (column.truth) markTold(column);
}

function finish(column, count) {
  column.card.setAttribute("aria-busy", "false");
  const mean = column.tokens.reduce((sum, { token }) => sum + token.probability, 0) / Math.max(count, 1);
  column.card.querySelector(".detail").textContent =
    count ? `${count} tokens, mean probability ${percent(mean)}` : "Empty answer: the model stopped at once.";
}

function begin(event) {
  cards = {};
  for (const [role, model] of Object.entries(event.roles)) {
    const column = Object.assign(makeCard(role, model), asked);
    column.card.setAttribute("aria-busy", "true");
    column.leak.addEventListener("click", () => report(event.id, role, column));
    cards[role] = column;
  }
  element("answers").replaceChildren(...Object.values(cards).map((column) => column.card));
}

function take(event) {
  if (event.error) throw new Error(event.error);
  if (event.roles) return begin(event);
  const column = cards[event.role];
  if (event.end === undefined) {
    addToken(column, event);
    column.leak.disabled = false;
  } else finish(column, event.end);
}

async function report(id, role, column) {
  column.leak.disabled = true;
  try {
    const done = await (await call("api/report", { id, role })).json();
    column.leak.textContent = "Reported";
    say(done.new ? `Written to ${done.file}.` : `Already in ${done.file}.`);
  } catch (error) {
    column.leak.disabled = false;
    say(error.message, true);
  }
}

async function ask() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const question = {
    question: element("question").value,
    unlearned: element("unlearned").value,
    direct: element("direct").checked,
    domain: element("domain").value,
  };
  const row = run.examples.find((one) => one.question === question.question);
  asked = { question: question.question, truth: row ? row.answer : "" };
  for (const name of NUMBERS) question[name] = Number(element(name).value);
  element("stop").disabled = false;
  say("Asking…");
  try {
    const reader = (await call("api/ask", question, mine.signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (rest + part.value).split("\n\n");
      rest = events.pop();
      for (const event of events) take(JSON.parse(event.slice("data: ".length)));
    }
    say("Done.");
  } catch (error) {
    if (mine !== asking) return; // another question took its place
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, true);
  } finally {
    if (mine === asking) {
      element("stop").disabled = true;
      for (const column of Object.values(cards)) column.card.setAttribute("aria-busy", "false");
    }
  }
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
element("stop").addEventListener("click", () => asking?.abort());
element("example").addEventListener("change", chooseExample);
element("question").addEventListener("input", showTruth);
element("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("ask").requestSubmit();
});

try {
  run = await (await call("api/run")).json();
  showRun();
  showTruth(); // of a question that was typed before the run was here
} catch (error) {
  say(error.message, true);
  element("send").disabled = true;
}
