// What htmx's attributes cannot say: the key, bodies in JSON, what went wrong, and the rater's keyboard.
"use strict";

const byId = (id) => document.getElementById(id);
const waiting = new Set(); // elements whose requests were refused for want of a key

function say(text, wrong = false) {
  byId("alert").textContent = wrong ? text : "";
  byId("status").textContent = wrong ? "" : text;
}

function ask(element) {
  if (element.tagName === "FORM") element.requestSubmit();
  else htmx.trigger(element, element.hasAttribute("hx-get") ? "refresh" : "click");
}

htmx.defineExtension("json", {
  onEvent: (name, event) => {
    if (name === "htmx:configRequest") event.detail.headers["Content-Type"] = "application/json";
    return true;
  },
  // numbers of hx-vals have become text among the parameters
  encodeParameters: (xhr, parameters, from) =>
    JSON.stringify({ ...Object.fromEntries(parameters), ...JSON.parse(from.getAttribute("hx-vals") ?? "{}") }),
});

document.addEventListener("htmx:configRequest", (event) => {
  const { headers, parameters, path } = event.detail;
  const key = sessionStorage.getItem("key");
  if (key) headers["Authorization"] = `Bearer ${key}`;
  for (const name of Object.keys(parameters)) if (parameters[name] === "") delete parameters[name];
  if (path === "/page/parts/card") parameters.skipped = answers().filter((one) => !one.rating).map((one) => one.sample).join(",");
  if (path === "/ratings" && !shown().dataset.sample) event.preventDefault();
  else if (path === "/ratings" && !parameters.rater?.trim()) {
    event.preventDefault();
    say("Say your name first: it stands beside your answers.", true);
    byId("rater").focus();
  }
});

document.addEventListener("htmx:responseError", (event) => {
  const { xhr, requestConfig } = event.detail;
  if (xhr.status === 401) {
    waiting.add(requestConfig.elt);
    if (!byId("key").open) byId("key").showModal();
    return;
  }
  let told;
  try {
    told = JSON.parse(xhr.responseText);
  } catch {
    told = { title: `the service answered ${xhr.status}`, detail: "", must: "", action: "try again" };
  }
  say([told.title, told.detail, told.must, told.action].filter(Boolean).join(". ") + ".", true);
});

for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, () => say("The service does not answer: see whether it runs, and try again.", true));
}

byId("key").addEventListener("close", () => {
  const field = byId("key").querySelector("input");
  if (!field.value) return;
  sessionStorage.setItem("key", field.value);
  field.value = "";
  const again = [...waiting];
  waiting.clear();
  again.forEach(ask);
});

// A user: what was kept is said, and his lists are asked for again; what is new in them is marked.

let before = new Map();

document.addEventListener("htmx:afterRequest", (event) => {
  const { successful, requestConfig, elt } = event.detail;
  if (!successful) return;
  if (elt.tagName === "FORM") say("");
  if (requestConfig.path === "/events") {
    for (const list of document.querySelectorAll("[data-system]")) {
      before.set(list.dataset.system, new Set([...list.children].map((one) => one.dataset.item)));
    }
    say(elt.dataset.done);
    htmx.trigger("#shown", "refresh");
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "lists") return;
  for (const list of document.querySelectorAll("[data-system]")) {
    const known = before.get(list.dataset.system);
    for (const one of known ? list.children : []) {
      if (known.has(one.dataset.item)) continue;
      const mark = document.createElement("span");
      mark.className = "new";
      mark.textContent = "new here";
      one.querySelector(".title").after(" ", mark);
    }
  }
  before = new Map();
});

// Suspects: answers of this tab, the last of which can be taken back.

const answers = () => JSON.parse(sessionStorage.getItem("answers") ?? "[]");

const shown = () => byId("card").querySelector("article");

function keep(list) {
  sessionStorage.setItem("answers", JSON.stringify(list));
  byId("undo").disabled = !list.length;
}

function next() {
  delete shown()?.dataset.sample; // one answer a card
  htmx.trigger("#card", "refresh");
}

function undo() {
  const last = answers().pop();
  if (!last) return;
  if (last.rating) return htmx.ajax("DELETE", `/ratings/${last.rating}`, { source: "#undo", swap: "none" });
  keep(answers().slice(0, -1));
  say("Taken back: it is asked again.");
  next();
}

document.addEventListener("htmx:afterRequest", (event) => {
  const { successful, requestConfig, xhr } = event.detail;
  if (requestConfig.path === "/ratings" && successful) {
    keep([...answers(), { sample: requestConfig.parameters.sample_id, rating: JSON.parse(xhr.responseText).rating_id }]);
    say(`Kept: grade ${requestConfig.parameters.relevance}.`);
    next();
  }
  if (requestConfig.verb === "delete" && (successful || xhr.status === 404)) {
    keep(answers().slice(0, -1)); // one that a refresh has read cannot be taken back, and hides those before it no longer
    if (successful) say("Taken back: it is asked again.");
    next();
  }
});

document.addEventListener("click", (event) => {
  const id = event.target.closest("button")?.id;
  if (id === "undo") undo();
  if (id === "unsure" && shown().dataset.sample) {
    keep([...answers(), { sample: shown().dataset.sample }]);
    say("Left aside.");
    next();
  }
  if (id === "again") {
    keep(answers().filter((one) => one.rating));
    next();
  }
});

document.addEventListener("keydown", (event) => {
  if (!byId("keyboard")?.checked || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
  const button = [...document.querySelectorAll("[data-keys]")].find((one) => one.dataset.keys.split(" ").includes(event.key));
  if (!button) return;
  event.preventDefault();
  button.click();
});

if (byId("rater")) {
  byId("rater").value = localStorage.getItem("rater") ?? "";
  byId("rater").addEventListener("change", () => localStorage.setItem("rater", byId("rater").value.trim()));
  byId("keyboard").checked = localStorage.getItem("keyboard") !== "off";
  byId("keyboard").addEventListener("change", () => localStorage.setItem("keyboard", byId("keyboard").checked ? "on" : "off"));
  keep(answers());
}
