// What must happen before the other scripts are there.

"use strict";

// Light or dark, before anything is drawn: what was chosen, else what the system prefers.
(function () {
  let chosen = null;
  try { chosen = localStorage.getItem("canal-review-theme"); } catch { /* a browser that keeps nothing */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();

// A form that is sent before htmx is there would leave the page and do nothing: it waits, and is sent then.
(function () {
  let ready = false, waiting = null;
  document.addEventListener("submit", (event) => {
    if (ready) return;
    event.preventDefault();
    waiting = [event.target, event.submitter];
  }, true);
  document.addEventListener("DOMContentLoaded", () => setTimeout(() => {
    ready = true;
    document.documentElement.dataset.ready = "yes";
    if (waiting) waiting[0].requestSubmit(waiting[1]);
  }));
})();
