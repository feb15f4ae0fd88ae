"use strict";
// The address of a shown video is #ROW, so the browser's own buttons go back and forth between searches.

const at = (id) => document.getElementById(id);
let limit = Infinity;
let first = 0;
let asked = 0;

async function answer(path, options) {
  const response = await fetch(path, options);
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  return content;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function loop(row, name) {
  const picture = element("picture");
  const still = element("source");
  still.media = "(prefers-reduced-motion: reduce)";
  still.srcset = `/still/${row}.webp`;
  const image = element("img");
  image.alt = `Preview of ${name}`;
  image.loading = "lazy";
  image.width = 160;
  image.height = 120;
  image.addEventListener("error", () => { image.alt = "No preview: the video cannot be decoded any more"; });
  image.src = `/preview/${row}.webp`;
  picture.append(still, image);
  return picture;
}

function card(video) {
  const item = element("li");
  const button = element("button", "card");
  button.type = "button";
  button.dataset.row = video.row;
  button.append(loop(video.row, video.name));
  if (video.score !== undefined) button.append(element("span", "score", video.score.toFixed(4)));
  const place = video.start >= 0 ? `, from frame ${video.start}` : "";
  button.append(element("span", "name", video.name + place), element("span", "label", video.label));
  button.addEventListener("click", () => { location.hash = `#${video.row}`; });
  item.append(button);
  return item;
}

function show(found, name) {
  const query = at("query");
  query.replaceChildren();
  if (found.query.preview) {
    const image = element("img");
    image.alt = "Preview of the query";
    image.src = found.query.preview;
    query.append(image, element("p", "", name));
  } else {
    const label = found.query.label ? ` (${found.query.label})` : "";
    query.append(loop(found.query.row, found.query.name), element("p", "", found.query.name + label));
  }
  at("neighbours").replaceChildren(...found.neighbours.map(card));
  at("found").hidden = false;
  at("found-title").focus({ preventScroll: true });
  at("upload").scrollIntoView({ block: "start" });
}

async function search(work, name) {
  const mine = ++asked;
  say("Searching ...");
  at("found").setAttribute("aria-busy", "true");
  try {
    const found = await work();
    if (mine !== asked) return;
    show(found, name);
    say(`${found.neighbours.length} neighbours of ${name || found.query.name}`);
  } catch (error) {
    if (mine === asked) say(error.message, true);
  } finally {
    at("found").removeAttribute("aria-busy");
  }
}

function follow() {
  const row = /^#(\d+)$/.exec(location.hash);
  if (row) search(() => answer(`/api/neighbours/${row[1]}`));
}

async function list(from) {
  try {
    const page = await answer(`/api/videos/${from}`);
    first = page.first;
    at("videos").replaceChildren(...page.videos.map(card));
    at("shown").textContent = `${first + 1} to ${first + page.videos.length} of ${page.total}`;
    at("back").disabled = first === 0;
    at("on").disabled = first + page.videos.length >= page.total;
    at("back").onclick = () => list(first - page.size);
    at("on").onclick = () => list(first + page.size);
  } catch (error) {
    say(error.message, true);
  }
}

at("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  const file = at("file").files[0];
  if (!file) return;
  if (file.size > limit) {
    say(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; allowed are ${limit / 1e6} MB`, true);
    return;
  }
  history.replaceState(null, "", location.pathname);
  search(() => answer("/api/search", { method: "POST", body: file }), file.name);
});
window.addEventListener("hashchange", follow);

answer("/api/about").then((about) => {
  limit = about.limit;
  at("limit").textContent = `(up to ${limit / 1e6} MB)`;
  at("about").textContent =
    `${about.videos} videos, ${about.dim} numbers each; checkpoint ${about.checkpoint}, corpus ${about.corpus}; ` +
    `search: ${about.search}`;
}).catch((error) => say(error.message, true));
list(0);
follow();
