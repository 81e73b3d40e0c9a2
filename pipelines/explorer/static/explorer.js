// The explorer's page. Whatever comes from data is put in as text, never as markup.
"use strict";

const SHOWN_HISTORY = 12, SHOWN_TEXTS = 3;
const byId = (id) => document.getElementById(id);
let chosen = new URLSearchParams(location.search);
const pictures = chosen.get("pictures") === "1";
let overview = null;
let selection = new AbortController();
let shown = "";

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

const counted = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

// What is shown stands in the address; a step that the reader took is one that "back" takes back.
function remember(values, step = false, state = null) {
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null || value === undefined) chosen.delete(name); else chosen.set(name, value);
  }
  if (!step) history.replaceState(history.state, "", `?${chosen}`);
  else if (`?${chosen}` !== location.search) history.pushState(state, "", `?${chosen}`);
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
  else if (wanted) {
    byId("dataset").value = "";
    return say(`Nothing is prepared of the data set ${wanted}. Choose another one, or run \`recmodels run --dataset ${wanted}\`.`, true);
  }
  await openDataset();
}

function showChoices() {
  byId("group").value = overview.groups[chosen.get("group")] ? chosen.get("group") : "";
  const seed = [...byId("seed").options].some(({ value }) => value === chosen.get("seed"));
  if (byId("seed").options.length) byId("seed").value = seed ? chosen.get("seed") : byId("seed").options[0].value;
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
  const seeds = [...new Set(overview.models.flatMap((model) => model.seeds))].sort((one, other) => one - other);
  byId("seed").replaceChildren(...seeds.map((seed) => make("option", { value: seed }, String(seed))));
  byId("seed").parentElement.hidden = seeds.length === 0;
  showChoices();
  byId("report").hidden = !overview.report;
  byId("report").href = `/report/${encodeURIComponent(dataset)}`;
  saySizes();
  const user = chosen.get("user");
  const opened = user ? openUser(user) : anyUser();
  if (chosen.has("item")) await showItem(chosen.get("item")).catch(told);
  await opened;
  showStale(dataset).catch(() => {});
}

function saySizes() {
  say(`${counted(overview.users, "user")}, ${counted(overview.items, "item")}, ${counted(overview.rows, "row")}, ` +
    `${counted(overview.models.length, "trained model")}.`);
}

async function showStale(dataset) {
  const stale = await ask("stale", { dataset });
  if (dataset !== overview.dataset || !stale.length) return;
  const seeds = new Map();
  for (const { model, seed, reasons } of stale) {
    const why = `${model}: ${reasons.join("; ")}`;
    seeds.set(why, [...(seeds.get(why) ?? []), seed]);
  }
  const entries = [...seeds].map(([why, of]) => make("li", {}, `${why} (seed${of.length === 1 ? "" : "s"} ${of.join(", ")})`));
  byId("notes").replaceChildren(make("div", { className: "note" },
    make("strong", {}, `${counted(stale.length, "checkpoint")} ${stale.length === 1 ? "is" : "are"} not what a run would make now.`),
    ` Lists come from what is stored; \`recmodels run --dataset ${dataset}\` brings it up to date.`,
    make("details", {}, make("summary", {}, "Why"), make("ul", {}, ...entries))));
}

async function anyUser(step = false) {
  const { user } = await ask("any_user", { dataset: overview.dataset, group: byId("group").value });
  await openUser(user, step);
}

async function findUsers() {
  const text = byId("search").value.trim(), group = byId("group").value;
  if (!overview || (!text && !group)) return byId("found").replaceChildren();
  const users = await ask("users", { dataset: overview.dataset, text, group, limit: 12 });
  byId("found").replaceChildren(...users.map(({ user, n_train }) => {
    const button = make("button", { type: "button" }, user, " ", muted(`${n_train}`));
    button.title = counted(n_train, "training row");
    button.addEventListener("click", running(() => openUser(user, true)));
    return make("li", {}, button);
  }));
  if (!users.length) byId("found").append(make("li", {}, muted("Nobody is called so.")));
}

async function openUser(name, step = false) {
  selection.abort();
  selection = new AbortController();
  const { signal } = selection;
  remember({ user: name, group: byId("group").value, seed: byId("seed").value }, step);
  shown = inAddress();
  const details = await ask("user", { dataset: overview.dataset, user: name }, signal);
  saySizes();
  const heldOut = new Map(details.held_out.map((item) => [item.asin, make("span", { className: "muted facts" })]));
  showUser(details, heldOut);
  if (overview.hint) return byId("lists").replaceChildren(make("p", { className: "note" }, overview.hint));
  const first = chosen.get("model");
  const models = [...overview.models].sort((one, other) => (other.model === first) - (one.model === first));
  const places = models.map((model) => make("section", { className: `list${model.model === first ? " first" : ""}` },
    make("h3", {}, model.title), muted("loading …")));
  const jump = make("select", {}, ...models.map((model, index) => make("option", { value: index }, model.title)));
  const beside = make("div", { className: "lists", tabIndex: 0, role: "group", ariaLabel: "Lists side by side" }, ...places);
  jump.addEventListener("change", () => { beside.scrollLeft = places[jump.value].offsetLeft - places[0].offsetLeft; });
  byId("lists").replaceChildren(make("h2", {}, "What the models recommend"),
    models.length > 3 ? make("label", { className: "by" }, "Go to the list of", jump) : "",
    beside);
  for (const [index, model] of models.entries()) {
    await showList(places[index], model, name, heldOut, signal);
  }
  for (const ranks of heldOut.values()) if (!ranks.textContent) ranks.append("in none of the lists");
}

const inAddress = () => ["dataset", "user", "seed"].map((name) => chosen.get(name)).join(" ");

function showUser(details, heldOut) {
  const day = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);
  const facts = ({ split, rating, timestamp }) => [
    split === "valid" ? "validation" : "", rating === null ? "" : `rated ${rating}`, timestamp === null ? "" : day(timestamp),
  ].filter(Boolean).join(", ");
  const had = details.history.map((item) => make("li", {}, picture(item), named(item), " ", make("span", { className: "muted facts" }, facts(item))));
  const test = details.held_out.map((item) => make("li", {}, picture(item), named(item), " ", heldOut.get(item.asin)));
  byId("user").replaceChildren(
    make("h2", {}, "User ", make("bdi", {}, details.user)),
    muted(counted(details.n_train, "training row")),
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
    for (const row of hits) {
      const ranks = heldOut.get(row.asin);
      ranks?.append(`${ranks.textContent ? ", " : ""}${model.model} at ${row.rank}`);
    }
    const popular = list.rows.some((row) => row.source !== "model");
    place.replaceChildren(...head, make("p", { className: "muted" },
      `${counted(hits.length, "held-out hit")} in ${list.rows.length}` +
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
  const strength = ({ kind, weight, users }) => users !== null ? counted(users, "user")
    : weight === null ? "" : `${kind.startsWith("graph: ") ? "similarity " : ""}${weight.toFixed(4)}`;
  return [...new Set(found.map(({ kind }) => kind))].flatMap((kind) => [
    make("div", { className: "muted" }, `${heading(kind)}:`),
    make("ul", {}, ...found.filter((reason) => reason.kind === kind).map((reason) =>
      make("li", {}, named(reason.because), " ", muted(strength(reason))))),
  ]);
}

async function showItem(asin, model) {
  if (chosen.get("item") !== asin) remember({ item: asin }, true, { items: (history.state?.items ?? 0) + 1 });
  const details = await ask("item", { dataset: overview.dataset, item: asin });
  const dialog = byId("item");
  const close = make("button", { type: "button", className: "close" }, "Close");
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
    muted(`${details.asin}, ${counted(details.n_train, "training row")}`), picture(details),
    details.description ? make("p", {}, make("bdi", {}, details.description.slice(0, 600))) : null,
    make("div", { className: "panels" }, ...profile(details.profile, "item")),
    ...(overview.models.length ? [make("label", { className: "by" }, make("h3", {}, "Similar items"), "by", choose), like] : [])));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (overview.models.length) await compare();
}

byId("item").addEventListener("close", () => {
  if (!chosen.has("item")) return;
  if (history.state?.items) history.go(-history.state.items);
  else remember({ item: "" });
});
window.addEventListener("popstate", running(async () => {
  chosen = new URLSearchParams(location.search);
  if ((chosen.get("pictures") === "1") !== pictures) return location.reload();
  if (!chosen.has("item")) byId("item").close();
  if (chosen.get("dataset") !== overview?.dataset) {
    byId("dataset").value = chosen.get("dataset");
    return openDataset();
  }
  if (inAddress() !== shown) {
    showChoices();
    openUser(chosen.get("user")).catch(told);
  }
  if (chosen.has("item")) await showItem(chosen.get("item"));
}));
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
  remember({ dataset: byId("dataset").value, user: "", group: "" }, true);
  await openDataset();
}));
byId("group").addEventListener("change", running(findUsers));
byId("any").addEventListener("click", running(() => anyUser(true)));
byId("seed").addEventListener("change", running(() => openUser(chosen.get("user"), true)));
byId("pictures").addEventListener("change", () => {
  // The page itself may not load pictures; another one that the server allows to is opened.
  remember({ pictures: byId("pictures").checked ? "1" : "" });
  location.reload();
});
start().catch(told);
