// Light or dark, before anything is drawn: what was chosen, else what the system prefers.

"use strict";

(function () {
  let chosen = null;
  try { chosen = localStorage.getItem("canal-review-theme"); } catch { /* a browser that keeps nothing */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
