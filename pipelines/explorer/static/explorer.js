// The explorer's page. Whatever comes from data is put in as text, never as markup.
"use strict";

const SHOWN_HISTORY = 12, SHOWN_TEXTS = 3;
const byId = (id) => document.getElementById(id);
const chosen = new URLSearchParams(location.search);
const pictures = chosen.get("pictures") === "1";
let overview = null;
let selection = new AbortController();

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const muted = (text) => make("span", { className: "muted" }, text);

async function ask(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const answer = await fetch(`/api/${path}?${new URLSearchParams(given)}`, { signal });
  const body = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function say(text, failed = false) {
  byId("status").textContent = text;
  byId("status").className = failed ? "error" : "muted";
}

// What was aborted gave way to something newer, and is no failure.
const told = (error) => { if (error.name !== "AbortError") say(error.message, true); };
const running = (work) => (...given) => work(...given).catch(told);

function remember(values) {
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null || value === undefined) chosen.delete(name); else chosen.set(name, value);
  }
  history.replaceState(null, "", `?${chosen}`);
}

function picture(item) {
  if (!pictures || !item.picture) return null;
  const image = make("img", { alt: "", loading: "lazy", referrerPolicy: "no-referrer" });
  image.addEventListener("error", () => image.remove());
  image.src = item.picture;
  return image;
}

function named(item, model) {
  const button = make("button", { type: "button", className: "plain" }, make("bdi", {}, item.title));
  button.addEventListener("click", running(() => showItem(item.asin, model)));
  return button;
}

function folded(entries, shown = SHOWN_HISTORY) {
  const list = make("ul", {}, ...entries.slice(0, shown));
  if (entries.length <= shown) return [list];
  const rest = make("details", {}, make("summary", {}, `and ${entries.length - shown} more`),
    make("ul", {}, ...entries.slice(shown)));
  return [list, rest];
}

function profile(of, whose) {
  const heading = make("h3", {}, `Profile of the ${whose}`);
  if (!of) return [make("div", {}, heading, muted("None was written."))];
  return [
    make("div", {}, heading, make("p", {}, make("bdi", {}, of.text || "empty")), muted(`Written by: ${of.written_by}.`)),
    make("div", {}, make("h3", {}, "What it was made from"),
      ...folded(of.made_from.map((line) => make("li", {}, make("bdi", {}, line))), SHOWN_TEXTS)),
  ];
}

async function start() {
  const known = await ask("datasets");
  byId("dataset").replaceChildren(...known.datasets.map(({ dataset, title }) =>
    make("option", { value: dataset }, title === dataset ? title : `${title} (${dataset})`)));
  byId("pictures").checked = pictures;
  if (known.hint) return say(known.hint);
  const wanted = chosen.get("dataset");
  if (known.datasets.some(({ dataset }) => dataset === wanted)) byId("dataset").value = wanted;
  else if (wanted) say(`Nothing is prepared of the data set ${wanted}.`, true);
  await openDataset();
}

async function openDataset() {
  const dataset = byId("dataset").value;
  for (const id of ["notes", "user", "lists", "found"]) byId(id).replaceChildren();
  say("Reading the data set …");
  overview = await ask("overview", { dataset });
  remember({ dataset });
  const activity = Object.entries(overview.groups).map(([name, users]) =>
    make("option", { value: name, disabled: users === 0 }, `${name} training rows (${users.toLocaleString("en")} users)`));
  byId("group").replaceChildren(make("option", { value: "" }, "all users"), ...activity);
  byId("group").value = overview.groups[chosen.get("group")] ? chosen.get("group") : "";
  const seeds = [...new Set(overview.models.flatMap((model) => model.seeds))].sort((one, other) => one - other);
  byId("seed").replaceChildren(...seeds.map((seed) => make("option", { value: seed }, String(seed))));
  if (seeds.includes(Number(chosen.get("seed")))) byId("seed").value = chosen.get("seed");
  byId("report").hidden = !overview.report;
  byId("report").href = `/report/${encodeURIComponent(dataset)}`;
  say(`${overview.users.toLocaleString("en")} users, ${overview.items.toLocaleString("en")} items, ` +
    `${overview.rows.toLocaleString("en")} rows, ${overview.models.length} trained models.`);
  const user = chosen.get("user");
  if (user) await openUser(user); else await anyUser();
  showStale(dataset).catch(() => {});
}

async function showStale(dataset) {
  const stale = await ask("stale", { dataset });
  if (dataset !== overview.dataset || !stale.length) return;
  const entries = stale.map(({ model, seed, reasons }) => make("li", {}, `${model}, seed ${seed}: ${reasons.join("; ")}`));
  byId("notes").replaceChildren(make("div", { className: "note" },
    make("strong", {}, `${stale.length} ${stale.length === 1 ? "model is" : "models are"} not what a run would make now.`),
    ` Lists come from what is stored; \`recmodels run --dataset ${dataset}\` brings it up to date.`,
    make("details", {}, make("summary", {}, "Why"), make("ul", {}, ...entries))));
}

async function anyUser() {
  const { user } = await ask("any_user", { dataset: overview.dataset, group: byId("group").value });
  await openUser(user);
}

async function findUsers() {
  const text = byId("search").value.trim(), group = byId("group").value;
  if (!overview || (!text && !group)) return byId("found").replaceChildren();
  const users = await ask("users", { dataset: overview.dataset, text, group, limit: 12 });
  byId("found").replaceChildren(...users.map(({ user, n_train }) => {
    const button = make("button", { type: "button" }, user, " ", muted(`${n_train}`));
    button.title = `${n_train} training rows`;
    button.addEventListener("click", running(() => openUser(user)));
    return make("li", {}, button);
  }));
  if (!users.length) byId("found").append(make("li", {}, muted("Nobody is called so.")));
}

async function openUser(name) {
  selection.abort();
  selection = new AbortController();
  const { signal } = selection;
  remember({ user: name, group: byId("group").value, seed: byId("seed").value });
  const details = await ask("user", { dataset: overview.dataset, user: name }, signal);
  const heldOut = new Map(details.held_out.map((item) => [item.asin, make("span", { className: "muted" })]));
  showUser(details, heldOut);
  if (overview.hint) return byId("lists").replaceChildren(make("p", { className: "note" }, overview.hint));
  const first = chosen.get("model");
  const models = [...overview.models].sort((one, other) => (other.model === first) - (one.model === first));
  const places = models.map((model) => make("section", { className: `list${model.model === first ? " first" : ""}` },
    make("h3", {}, model.title), muted("loading …")));
  byId("lists").replaceChildren(make("h2", {}, "What the models recommend"),
    make("div", { className: "lists", tabIndex: 0, role: "group", ariaLabel: "Lists side by side" }, ...places));
  for (const [index, model] of models.entries()) {
    await showList(places[index], model, name, heldOut, signal);
  }
}

function showUser(details, heldOut) {
  const day = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);
  const facts = ({ split, rating, timestamp }) => [
    split === "valid" ? "validation" : "", rating === null ? "" : `rated ${rating}`, timestamp === null ? "" : day(timestamp),
  ].filter(Boolean).join(", ");
  const had = details.history.map((item) => make("li", {}, picture(item), named(item), " ", muted(facts(item))));
  const test = details.held_out.map((item) => make("li", {}, picture(item), named(item), " ", heldOut.get(item.asin)));
  byId("user").replaceChildren(
    make("h2", {}, "User ", make("bdi", {}, details.user)),
    muted(`${details.n_train} training rows`),
    make("div", { className: "panels" },
      make("div", {}, make("h3", {}, "Had before the test, the latest first"),
        ...(had.length ? folded(had) : [muted("Nothing: answered by popularity.")])),
      make("div", {}, make("h3", {}, "Held out for the test"), ...(test.length ? folded(test) : [muted("Nothing.")])),
      ...profile(details.profile, "user")));
}

async function showList(place, model, user, heldOut, signal) {
  const wanted = Number(byId("seed").value);
  const seed = model.seeds.includes(wanted) ? wanted : model.seeds[0];
  const head = [make("h3", {}, model.title),
    muted(`${model.model}, seed ${seed}${model.recall === null ? "" : `, test Recall@20 ${model.recall.toFixed(4)}`}`)];
  try {
    const list = await ask("recommendations", { dataset: overview.dataset, user, model: model.model, seed }, signal);
    const hits = list.rows.filter((row) => row.held_out);
    for (const row of hits) heldOut.get(row.asin)?.append(`${model.model} at ${row.rank}; `);
    const popular = list.rows.some((row) => row.source !== "model");
    place.replaceChildren(...head, make("p", { className: "muted" },
      `${hits.length} held-out ${hits.length === 1 ? "hit" : "hits"} in ${list.rows.length}` +
      (popular ? `; by ${list.rows[0].source}` : "")),
      make("ol", {}, ...list.rows.map((row) => recommended(row, model.model, seed, user))));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    place.replaceChildren(...head, make("p", { className: "error" }, error.message));
  }
}

function recommended(row, model, seed, user) {
  const why = make("details", {}, make("summary", {}, "Why"));
  why.addEventListener("toggle", running(async () => {
    if (!why.open || why.dataset.asked) return;
    why.dataset.asked = "yes";
    const found = await ask("reasons", { dataset: overview.dataset, user, item: row.asin, model, seed });
    why.append(...(found.length ? reasons(found) : [muted(row.source === "model"
      ? "Nothing this user had is a neighbour of it, and nobody else had both: the model has it from elsewhere."
      : "It is popular in training; nothing is known of this user.")]));
  }));
  return make("li", { className: row.held_out ? "hit" : "" }, picture(row), named(row, model),
    row.held_out ? make("span", { className: "badge" }, " ✓ held out") : null, make("br"),
    muted(row.asin), " ", make("span", { className: "muted score" }, `score ${row.score.toFixed(4)}`), why);
}

function reasons(found) {
  const heading = (kind) => kind === "model" ? "Adds to the score"
    : kind === "co-buyers" ? "Other users who had both"
    : kind.startsWith("graph: ") ? `Neighbour in the ${kind.slice(7)} graph`
    : `Moved by ${kind}`;
  return [...new Set(found.map(({ kind }) => kind))].flatMap((kind) => [
    make("div", { className: "muted" }, `${heading(kind)}:`),
    make("ul", {}, ...found.filter((reason) => reason.kind === kind).map(({ because, weight, users }) =>
      make("li", {}, named(because), " ", muted(users !== null ? `${users} ${users === 1 ? "user" : "users"}` : weight === null ? "" : weight.toFixed(4))))),
  ]);
}

async function showItem(asin, model) {
  const details = await ask("item", { dataset: overview.dataset, item: asin });
  const dialog = byId("item");
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const like = make("div", {});
  const choose = make("select", {}, ...overview.models.map(({ model: name, title }) => make("option", { value: name }, title)));
  if (model) choose.value = model;
  const compare = running(async () => {
    const found = await ask("similar", { dataset: overview.dataset, item: asin, model: choose.value });
    like.replaceChildren(make("ol", {}, ...found.rows.map((row) =>
      make("li", {}, picture(row), named(row, choose.value), " ", muted(row.similarity.toFixed(4))))));
  });
  choose.addEventListener("change", compare);
  dialog.replaceChildren(make("div", {}, close, make("h2", { id: "item-title" }, make("bdi", {}, details.title)),
    muted(`${details.asin}, ${details.n_train} training rows`), picture(details),
    details.description ? make("p", {}, make("bdi", {}, details.description.slice(0, 600))) : null,
    make("div", { className: "panels" }, ...profile(details.profile, "item")),
    ...(overview.models.length ? [make("h3", {}, "Similar items"), make("label", {}, "by ", choose), like] : [])));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (overview.models.length) await compare();
}

let typing = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(running(findUsers), 200);
});
byId("choice").addEventListener("submit", running(async (event) => {
  event.preventDefault();
  await findUsers();
  byId("found").querySelector("button")?.click();
}));
byId("dataset").addEventListener("change", running(async () => {
  remember({ user: "", group: "" });
  await openDataset();
}));
byId("group").addEventListener("change", running(findUsers));
byId("any").addEventListener("click", running(anyUser));
byId("seed").addEventListener("change", running(() => openUser(chosen.get("user"))));
byId("pictures").addEventListener("change", () => {
  // The page itself may not load pictures; another one that the server allows to is opened.
  remember({ pictures: byId("pictures").checked ? "1" : "" });
  location.reload();
});
start().catch(told);
