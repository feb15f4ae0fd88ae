"use strict";
// Draws every chart into its place, in the colours that the reader's system asks for, and again when these change.
(() => {
  const { charts, config, palettes } = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];
  function coloured(value, palette) {
    if (typeof value === "string") return Object.hasOwn(palette, value) ? palette[value] : value;
    if (Array.isArray(value)) return value.map((one) => coloured(one, palette));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, palette)]));
  }
  async function draw() {
    for (const view of drawn.splice(0)) view.finalize();
    const palette = palettes[dark.matches ? "dark" : "light"];
    for (const [id, spec] of Object.entries(charts)) {
      const whole = { width: "container", autosize: { type: "fit-x", contains: "padding" }, ...coloured(spec, palette) };
      const place = document.getElementById(id);
      const room = place.clientWidth;
      const own = coloured(config, palette);
      // Names of bars may take two fifths of the chart, and a legend has as many columns as fit.
      own.axis = { ...own.axis, labelLimit: Math.round(room * 0.4) };
      own.legend = { ...own.legend, columns: Math.max(1, Math.floor(room / 150)) };
      // `ast`: expressions are interpreted, so that the page needs no right to run code made from text.
      const options = { actions: false, renderer: "svg", ast: true, config: own };
      try {
        drawn.push(await vegaEmbed(place, whole, options));
        // The figure has the words already; a reader's software need not go through every bar.
        place.querySelector("svg").setAttribute("aria-hidden", "true");
      } catch (error) {
        place.textContent = "This chart could not be drawn; its figures are in the table below.";
        console.error(`${id}: ${error}`);
      }
    }
    document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
  }
  let last = draw();
  dark.addEventListener("change", () => { last = last.then(draw); });
  window.chartsDrawn = () => last;
})();
