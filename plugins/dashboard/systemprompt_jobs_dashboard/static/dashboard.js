// Asks for the page again when the server says that something has changed, and puts in the parts
// marked data-live. Nothing happens while the tab is hidden or somebody is writing or choosing in such a part.
"use strict";
(() => {
  const state = document.getElementById("live-state");
  const address = document.currentScript?.dataset.events;
  const live = [...document.querySelectorAll("[data-live]")];
  if (!address || !live.length || !window.EventSource) return;
  let source = null, first = true, asking = false, again = false;

  const busy = (part) =>
    part.querySelector('details.pause[open], input[name="job"]:checked') ||
    (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"));

  // What tells an element again after its part was replaced: where it leads, what it sends, its name.
  const trace = (element) => {
    const form = element.closest("form")?.getAttribute("action");
    if (form) return `form[action="${CSS.escape(form)}"] ${element.localName}`;
    for (const name of ["href", "id", "aria-label"]) {
      const value = element.getAttribute(name);
      if (value) return `[${name}="${CSS.escape(value)}"]`;
    }
    return null;
  };

  const put = (part, fresh) => {
    if (!fresh || busy(part) || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) && trace(document.activeElement);
    for (const old of part.querySelectorAll("details[id]")) {
      const again = fresh.querySelector(trace(old));
      if (again) again.open = old.open;
    }
    const logs = [...part.querySelectorAll(".log")].map((log) => [trace(log), log.scrollTop, log.scrollHeight - log.clientHeight]);
    const left = part.querySelector("[data-left]")?.scrollLeft;
    part.replaceChildren(...fresh.childNodes);
    if (left !== undefined) part.querySelector("[data-left]").scrollLeft = left;
    for (const [path, top, end] of logs) {
      const log = part.querySelector(path);
      if (log) log.scrollTop = top >= end - 4 ? log.scrollHeight : top;
    }
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (answer.ok && !answer.redirected) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) put(part, fresh.getElementById(part.id));
      }
    } catch { /* the next event asks again */ }
    asking = false;
    if (again) { again = false; refresh(); }
  };

  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(address);
    source.onopen = () => { state.textContent = "live"; };
    source.onerror = () => { state.textContent = "not live"; };
    source.addEventListener("changed", () => { if (!first) refresh(); first = false; });
  };
  const close = () => { source?.close(); source = null; state.textContent = "paused"; };

  for (const wide of document.querySelectorAll("[data-left]")) wide.scrollLeft = wide.dataset.left - wide.clientWidth / 2;
  for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
  document.addEventListener("visibilitychange", () => { document.hidden ? close() : open(); });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
