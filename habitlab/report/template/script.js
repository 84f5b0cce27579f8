// Comfort only: the page says everything without this script.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("scheme");
  const dark = () => root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const keep = (value) => { try { localStorage.setItem("scheme", value); } catch { /* storage may be shut */ } };
  try { const kept = localStorage.getItem("scheme"); if (kept) root.dataset.scheme = kept; } catch { /* likewise */ }
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent} colours`); };
  button.hidden = false;
  name();
  button.addEventListener("click", () => { root.dataset.scheme = dark() ? "light" : "dark"; keep(root.dataset.scheme); name(); });

  for (const copy of document.querySelectorAll(".copy")) {
    if (!navigator.clipboard) continue;
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(copy.previousElementSibling.textContent.trim());
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  const links = [...document.querySelectorAll(".toc a")];
  const targets = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1)))).filter(Boolean);
  const spy = () => {
    const passed = targets.filter((target) => target.getBoundingClientRect().top < innerHeight * 0.35);
    const last = passed[passed.length - 1] || targets[0];
    for (const link of links) {
      if (last && decodeURIComponent(link.hash.slice(1)) === last.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  if (links.length) { addEventListener("scroll", () => requestAnimationFrame(spy), { passive: true }); spy(); }

  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("main details:not(.toc-small)")) { fold.dataset.was ??= fold.open; fold.open = true; }
  });
  addEventListener("afterprint", () => {
    for (const fold of document.querySelectorAll("main details[data-was]")) { fold.open = fold.dataset.was === "true"; delete fold.dataset.was; }
  });
})();
