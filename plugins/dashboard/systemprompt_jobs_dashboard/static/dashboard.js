// Asks for the page again when the server says that something has changed, and puts in the parts
// marked data-live. Nothing happens while the tab is hidden or somebody is writing in such a part.
"use strict";
(() => {
  const state = document.getElementById("live-state");
  const address = document.currentScript?.dataset.events;
  const live = [...document.querySelectorAll("[data-live]")];
  if (!address || !live.length || !window.EventSource) return;
  let source = null, first = true, asking = false, again = false;

  const busy = (part) =>
    part.querySelector("details.pause[open]") ||
    (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"));

  const put = (part, fresh) => {
    if (!fresh || busy(part) || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
    part.replaceChildren(...fresh.childNodes);
    if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
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

  document.addEventListener("visibilitychange", () => { document.hidden ? close() : open(); });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
