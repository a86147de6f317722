"use strict";
(() => {
  const root = document.documentElement;
  const night = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (night.matches ? "dark" : "light")) === "dark";
  const colours = () => {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue(name).trim();
  };

  const holder = document.getElementById("map-data");
  const data = holder ? JSON.parse(holder.textContent) : null;
  // plotly reads a little HTML in its texts; ids and class names must stay plain words there, too
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const sizes = { faint: 4, copy: 6, other: 6 };

  function trace(t, colour, projection) {
    const [x, y] = data[projection];
    return {
      type: "scatter", mode: "markers", name: plain(t.name), visible: t.hidden ? "legendonly" : true,
      x: t.rows.map((n) => x[n]), y: t.rows.map((n) => y[n]),
      customdata: t.rows.map((n) => [data.id[n], data.label[n], data.kind[n], data.predicted[n]].map(plain)),
      hovertemplate: "<b>%{customdata[0]}</b><br>%{customdata[1]}, %{customdata[2]}<br>predicted %{customdata[3]}<extra></extra>",
      marker: {
        color: colour("--" + t.colour), symbol: t.symbol, size: sizes[t.colour] || 7,
        opacity: t.colour === "faint" ? 0.55 : 0.85, line: { width: 0.5, color: colour("--paper") },
      },
    };
  }

  function contour(c, colour) { // density is a picture of the plane UMAP drew, so it is shown there only
    const [low, high] = [c.levels[0], c.levels[1]];
    return {
      type: "contour", x: c.x, y: c.y, z: c.value, showscale: false, hoverinfo: "skip", showlegend: false,
      contours: { coloring: "none", start: low, end: high, size: Math.max(high - low, 1e-9) },
      line: { color: colour("--" + c.colour), width: 1 }, opacity: 0.5,
    };
  }

  function span(values) {
    const real = values.filter((v) => v !== null);
    const low = Math.min(...real), high = Math.max(...real), room = 0.05 * (high - low) || 1;
    return [low - room, high + room];
  }

  function drawMaps() {
    if (!data) return;
    root.classList.add("drawn"); // before drawing: a hidden element has no width to fill
    const colour = colours();
    const projection = document.querySelector("input[name=projection]:checked").value;
    const [x, y] = data[projection];
    const axis = (title, range) => ({
      title: { text: title, standoff: 6 }, range, zeroline: false, showline: false,
      gridcolor: colour("--rule"), tickfont: { size: 10 },
    });
    const names = projection === "umap" ? ["UMAP 1", "UMAP 2"] : ["PCA 1", "PCA 2"];
    for (const plot of data.plots) {
      const lines = plot.div === "map-4" && projection === "umap" ? data.contours.map((c) => contour(c, colour)) : [];
      Plotly.react(plot.div, [...lines, ...plot.traces.map((t) => trace(t, colour, projection))], {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 12, color: colour("--ink") },
        margin: { l: 44, r: 8, t: 8, b: 40 }, hovermode: "closest",
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
        legend: { orientation: "h", y: -0.16, x: 0, itemsizing: "constant" },
        hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--rule"), font: { color: colour("--ink") }, align: "left" },
        xaxis: axis(names[0], span(x)), yaxis: axis(names[1], span(y)),
      }, { displaylogo: false, responsive: true, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] });
    }
  }

  function recolour() {
    drawMaps();
    root.dispatchEvent(new Event("heatprint-theme")); // what else is drawn in colours of its own
  }

  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; recolour(); });
  night.addEventListener("change", recolour);
  for (const choice of document.querySelectorAll("input[name=projection]")) choice.addEventListener("change", drawMaps);

  const reach = () => { // a table wider than the page must be reachable to be scrolled by keyboard
    for (const one of document.querySelectorAll(".wide")) {
      if (one.scrollWidth > one.clientWidth) one.tabIndex = 0; else one.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", reach);
  reach();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
  drawMaps();
})();
