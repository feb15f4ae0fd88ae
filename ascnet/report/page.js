"use strict";
(() => {
  // Clips: a button stops all of them, on their first frame; for who asked for less motion they begin stopped.
  const button = document.getElementById("pause");
  const clips = Array.from(document.querySelectorAll("img.clip"));
  let stopped = false;
  function stop(on) {
    stopped = on;
    for (const clip of clips) {
      if (!on) {
        if (clip.still) clip.still.replaceWith(clip);
        clip.still = null;
      } else if (!clip.still && clip.complete) {
        const still = document.createElement("canvas");
        still.width = clip.width; still.height = clip.height; still.className = "clip";
        still.setAttribute("role", "img"); still.setAttribute("aria-label", clip.alt);
        still.getContext("2d").drawImage(clip, 0, 0, clip.width, clip.height);
        clip.still = still; clip.replaceWith(still);
      }
    }
    button.textContent = on ? "Play clips" : "Pause clips";
    button.setAttribute("aria-pressed", String(on));
  }
  button.addEventListener("click", () => stop(!stopped));
  if (!clips.length) button.hidden = true;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) addEventListener("load", () => stop(true));

  const plane = document.getElementById("plane");
  if (!plane) return;
  const svg = plane.querySelector("svg"), tip = document.getElementById("tip");
  const points = Array.from(svg.querySelectorAll(".point"));
  let current = null;
  function show(point) {
    if (current) current.classList.remove("at");
    current = point;
    tip.hidden = !point;
    tip.replaceChildren();
    if (!point) return;
    point.classList.add("at");
    if (point.dataset.thumb) {
      const picture = document.createElement("img");
      picture.src = point.dataset.thumb; picture.alt = "";
      tip.append(picture);
    }
    const label = document.createElement("b");
    label.textContent = point.dataset.label;
    tip.append(label, `${point.dataset.name}${point.dataset.split ? `, ${point.dataset.split}` : ""}`);
    const at = point.getBoundingClientRect(), frame = plane.getBoundingClientRect();
    const left = at.left - frame.left + 14, top = at.top - frame.top + 14;
    tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${top + tip.offsetHeight > frame.height ? Math.max(0, top - tip.offsetHeight - 24) : top}px`;
  }
  svg.addEventListener("pointerover", (event) => { if (event.target.classList.contains("point")) show(event.target); });
  svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) show(null); });
  svg.addEventListener("click", (event) => { if (event.target.classList.contains("point")) show(event.target); });
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", (event) => {
    const shown = points.filter((point) => !point.classList.contains("dim"));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!step || !shown.length) return;
    event.preventDefault();
    const place = shown.indexOf(current);
    show(shown[place < 0 ? (step > 0 ? 0 : shown.length - 1) : (place + step + shown.length) % shown.length]);
  });
  const keys = Array.from(document.querySelectorAll(".keys button"));
  for (const key of keys) {
    key.addEventListener("click", () => {
      key.setAttribute("aria-pressed", String(key.getAttribute("aria-pressed") !== "true"));
      const on = new Set(keys.filter((k) => k.getAttribute("aria-pressed") === "true").map((k) => k.dataset.class));
      for (const point of points) point.classList.toggle("dim", on.size > 0 && !on.has(point.dataset.class));
    });
  }
})();
