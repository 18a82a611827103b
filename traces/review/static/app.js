// What the pages do beside being read: open events in place, keep only what is near on the page, follow, keys.
(() => {
  const $ = (query, root = document) => root.querySelector(query);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const typing = (node) => node.closest?.("input:not([type=checkbox],[type=radio]), textarea, select, [contenteditable]");
  const text = async (url) => {
    const answer = await fetch(url, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.text();
  };

  const run = $("#run");

  // What can be scrolled sideways can be reached with keys.
  const reachable = (root) => {
    for (const node of all(".tablewrap, .picture, pre", root)) {
      const scrolls = node.scrollWidth > node.clientWidth + 1 || node.scrollHeight > node.clientHeight + 1;
      if (scrolls) node.tabIndex = 0;
      else node.removeAttribute("tabindex");
    }
  };
  reachable(document);
  addEventListener("resize", () => reachable(document));
  document.addEventListener("toggle", (event) => { if (event.target.open) reachable(event.target); }, true);

  // ---------------------------------------------------------------- light and dark, help
  $("#theme")?.addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("marple-theme", document.documentElement.dataset.theme); } catch { /* storage is off */ }
  });
  const help = $("#help");
  const showHelp = () => { if (help && !help.open) help.showModal(); };
  $("#help-button")?.addEventListener("click", showHelp);

  // ---------------------------------------------------------------- the list of runs
  const filters = $(".filters");
  filters?.addEventListener("change", () => filters.submit());
  const tray = $(".tray");
  const ticked = () => all("#runs input[name=run]:checked");
  const showTray = () => {
    if (!tray) return;
    const n = ticked().length;
    tray.hidden = n === 0;
    $("[role=status]", tray).textContent = n < 2 ? "Tick a second run" : n > 2 ? "Only two runs can be compared" : "Two runs";
    $("button", tray).disabled = n !== 2;
  };
  document.addEventListener("change", (event) => { if (event.target.name === "run") showTray(); });
  showTray();
  const silence = () => {
    for (const node of all("[data-heard]")) {
      const heard = Number(node.dataset.heard);
      if (!heard || (run && run.dataset.state !== "running")) continue;
      const seconds = Math.max(0, Date.now() / 1000 - heard);
      const said = seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
      if (node.id === "silent") node.textContent = run.dataset.held ? `since ${said}` : seconds < 20 ? `last event ${said} ago` : `silent since ${said}`;
      node.classList.toggle("long", seconds >= 60 && !run?.dataset.held);
    }
  };
  const liveList = async () => {
    const table = $("#runs[data-live]");
    if (!table || document.hidden || ticked().length) return;
    try {
      const page = new DOMParser().parseFromString(await text(location.href), "text/html");
      const fresh = $("#runs", page);
      if (fresh) {
        $("tbody", table).replaceWith($("tbody", fresh));
        if (!fresh.hasAttribute("data-live")) table.removeAttribute("data-live");
      }
    } catch { /* the server is gone; what is shown stays */ }
  };
  if ($("#runs[data-live]")) setInterval(liveList, 4000);

  // ---------------------------------------------------------------- events
  const runPath = run ? `/run/${encodeURIComponent(run.dataset.run)}` : "";
  const list = $("#list");

  const fill = async (event) => {
    const body = $(".body", event);
    if (!body || body.dataset.state) return;
    body.dataset.state = "loading";
    try {
      body.innerHTML = await text(event.dataset.body);
      body.dataset.state = "there";
      reachable(body);
    } catch (error) {
      body.textContent = `This event could not be loaded (${error.message}). Is the server still running?`;
      delete body.dataset.state;
    }
  };
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.event") && event.target.open) fill(event.target);
  }, true);

  // A chunk that is far away is taken off the page and keeps its place by its height.
  const chunks = list ? all(".chunk", list) : [];
  const NEAR = 1200; // pixels above and below the window within which events are loaded
  const KEPT = 6000; // and beyond which they are taken off again
  const isFar = (chunk) => {
    const place = chunk.getBoundingClientRect();
    return place.bottom < -KEPT || place.top > innerHeight + KEPT;
  };
  const load = async (chunk, { keep = false } = {}) => {
    if (!chunk.classList.contains("waiting") || chunk.dataset.loading) return;
    chunk.dataset.loading = "yes";
    try {
      chunk.innerHTML = await text(`${runPath}/events?from=${chunk.dataset.from}`);
      chunk.classList.remove("waiting");
      chunk.style.minHeight = "";
    } catch { /* the link in its place still works */ }
    delete chunk.dataset.loading;
    if (!keep && isFar(chunk)) unload(chunk);
  };
  const unload = (chunk) => {
    if (chunk.classList.contains("waiting") || $("details.event[open]", chunk) || chunk.contains(document.activeElement)) return;
    chunk.style.minHeight = `${chunk.offsetHeight}px`;
    chunk.classList.add("waiting");
    const link = document.createElement("a");
    link.className = "waiting-link";
    link.href = `${runPath}?from=${chunk.dataset.from}#events`;
    link.textContent = `E${chunk.dataset.from} to E${chunk.dataset.to}`;
    chunk.replaceChildren(link);
  };
  if (list && chunks.length > 1) {
    const there = chunks.find((one) => !one.classList.contains("waiting"));
    const usual = there ? there.offsetHeight / (there.dataset.to - there.dataset.from + 1) : 24;
    for (const chunk of chunks) {
      if (!chunk.classList.contains("waiting")) continue;
      chunk.style.minHeight = `${Math.round((chunk.dataset.to - chunk.dataset.from + 1) * usual)}px`;
    }
    let due = 0;
    const sweep = () => {
      due = 0;
      for (const chunk of chunks) {
        const place = chunk.getBoundingClientRect();
        if (place.bottom > -NEAR && place.top < innerHeight + NEAR) load(chunk);
        else if (isFar(chunk)) unload(chunk);
      }
    };
    const soon = () => { due ||= setTimeout(sweep, 80); };
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    setInterval(soon, 1000);
    sweep();
  }
  const chunkOf = (number) => all(".chunk", list).find((one) => number >= +one.dataset.from && number <= +one.dataset.to);

  const reach = async (id, { open = true } = {}) => {
    if (!list || !/^E\d+$/.test(id)) return false;
    const chunk = chunkOf(Number(id.slice(1)));
    if (!chunk) return false;
    while (chunk.dataset.loading) await new Promise((go) => setTimeout(go, 30));
    if (chunk.classList.contains("waiting")) await load(chunk, { keep: true });
    const event = document.getElementById(id);
    if (!event) return false;
    if (event.classList.contains("minor")) setMinor(true);
    if (open) { event.open = true; await fill(event); }
    select(event);
    event.scrollIntoView({ block: "start" });
    // Chunks above may take their real heights only now.
    setTimeout(() => event.scrollIntoView({ block: "start" }), 250);
    return true;
  };
  const selected = () => $(".event.at, #runs tr.at");
  const select = (node) => { selected()?.classList.remove("at"); node?.classList.add("at"); };

  document.addEventListener("click", async (event) => {
    const asked = event.target.closest?.("[data-ask]");
    if (asked && !window.confirm(asked.dataset.ask)) { event.preventDefault(); return; }
    const link = event.target.closest?.("a[data-event]");
    if (!link || !run || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (await reach(link.dataset.event)) history.pushState(null, "", `#${link.dataset.event}`);
    else location.href = link.getAttribute("href");
  });
  // What is opened is in the address, to be copied.
  list?.addEventListener("click", (event) => {
    const details = event.target.closest("details.event > summary")?.parentElement;
    if (!details) return;
    select(details);
    history.replaceState(null, "", `#${details.id}`);
  });
  const fromHash = () => { if (location.hash) reach(decodeURIComponent(location.hash.slice(1))); };
  window.addEventListener("hashchange", fromHash);

  const minor = $("#minor");
  const setMinor = (on) => { if (minor) minor.checked = on; list?.classList.toggle("show-minor", on); };
  minor?.addEventListener("change", () => setMinor(minor.checked));
  setMinor(minor?.checked ?? false);
  $("#jump")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const input = $("input", event.target);
    const id = input.value.trim().toUpperCase().replace(/^(\d)/, "E$1");
    reach(id).then((there) => { input.setCustomValidity(there ? "" : "No such event"); input.reportValidity(); });
    input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
  });

  // ---------------------------------------------------------------- follow
  const follow = $("#follow");
  let stream = null;
  let headTimer = 0;
  const refreshHead = () => {
    clearTimeout(headTimer);
    headTimer = setTimeout(async () => {
      try { $("#head").innerHTML = await text(`${runPath}/head`); } catch { /* next time */ }
    }, 700);
  };
  const take = (data) => {
    let chunk = all(".chunk", list).at(-1);
    const first = data.first;
    if (chunk?.classList.contains("waiting")) { chunk.dataset.to = "1000000000"; }
    else {
      const page = document.createElement("template");
      page.innerHTML = data.html;
      for (const node of [...page.content.children]) if (node.id && document.getElementById(node.id)) node.remove();
      if (chunk && first - chunk.dataset.from >= 200) {
        const next = document.createElement("div");
        next.className = "chunk";
        next.dataset.from = first;
        list.append(next);
        chunk = next;
      }
      chunk?.append(page.content);
      if (chunk) chunk.dataset.to = "1000000000";
    }
    $(".empty", list)?.remove();
    const near = innerHeight + scrollY > document.documentElement.scrollHeight - 700;
    if (follow?.checked && near) scrollTo({ top: document.documentElement.scrollHeight });
    refreshHead();
  };
  const say = (data) => {
    run.dataset.state = data.state;
    run.dataset.held = data.held ? "yes" : "";
    $("#live .dot")?.classList.toggle("live", data.state === "running" && !data.held);
    $("#count").textContent = data.count.toLocaleString("en");
    const silent = $("#silent");
    if (silent && data.heard) silent.dataset.heard = data.heard;
    if (data.state === "running") {
      const asked = data.wanted === (data.held ? "pause" : "go") ? "" : `, asked to ${data.wanted === "go" ? "go on" : data.wanted}`;
      $("#live-text").textContent = `${data.held ? "Paused" : "Running"}${asked}`;
    } else {
      stream?.close();
      stream = null;
      setTimeout(() => location.reload(), 900);
    }
  };
  if (run?.dataset.state === "running" && list) {
    stream = new EventSource(`${runPath}/stream?after=${run.dataset.count}`);
    stream.addEventListener("events", (event) => take(JSON.parse(event.data)));
    stream.addEventListener("state", (event) => say(JSON.parse(event.data)));
    stream.addEventListener("gone", () => { stream.close(); $("#live-text").textContent = "The run's folder is gone."; });
    stream.onerror = () => { $("#live-text").textContent = "The server does not answer; what is shown is what there was."; };
    addEventListener("pagehide", () => stream?.close());
  }
  setInterval(silence, 1000);
  silence();

  // ---------------------------------------------------------------- keys
  const stops = () => (list ? all("details.event").filter((one) => one.offsetParent) : all("#runs tbody tr"));
  const move = (by) => {
    const places = stops();
    if (!places.length) return;
    const now = places.indexOf(selected());
    const next = places[Math.min(places.length - 1, Math.max(0, now < 0 ? (by > 0 ? 0 : places.length - 1) : now + by))];
    select(next);
    const handle = $("summary", next) ?? $("a", next);
    handle?.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  const open = () => {
    const node = selected();
    if (!node) return;
    if (node.matches("details")) node.open = !node.open;
    else $("th a", node)?.click();
  };
  const go = (id) => { const node = document.getElementById(id); node?.scrollIntoView({ block: "start" }); return node; };
  const label = async () => {
    const event = selected();
    if (event?.matches("details.event")) {
      event.open = true;
      await fill(event);
      const form = $(".labelling", event);
      if (form) { form.open = true; $("textarea", form).focus(); }
    } else {
      go("notes");
      $("#notes textarea")?.focus();
    }
  };
  const keys = {
    "/": () => $("#search")?.focus(),
    "?": showHelp,
    j: () => ($("#next") && !list ? $("#next").click() : move(1)),
    k: () => ($("#prev") && !list ? $("#prev").click() : move(-1)),
    o: open,
    x: () => $("input[name=run]", selected() ?? document)?.click(),
    c: () => (run ? go("claims") : ticked().length === 2 && $("#compare").submit()),
    t: () => go("timeline"),
    e: () => go("events"),
    b: () => setMinor(!minor?.checked),
    l: label,
    u: () => { location.href = list || !$("article[data-run]") ? "/" : `/run/${encodeURIComponent($("article[data-run]").dataset.run)}`; },
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(document.activeElement)) { document.activeElement.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || help?.open) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  if (list) fromHash();
})();
