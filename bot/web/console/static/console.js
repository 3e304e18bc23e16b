// The console's script. Without it every page works by links and forms; with it pages refresh in place, acts keep the
// place and the focus, and the Mini App signs in by Telegram and sends its session in a header.

const launch = new URLSearchParams(location.hash.slice(1));
const initData = launch.get("tgWebAppData");
const TELEGRAM_WEB = "https://web.telegram.org";
const HOME = "/console";
/** Parameters that report an act after its redirect; they are no part of the page's address. */
const REPORT = ["did", "about", "undo"];

/** Session of the Mini App; null in a browser, whose session is a cookie. */
let session = null;
/** Pages of the Mini App, for Telegram's Back button; a browser keeps them itself. */
const visited = [];
/** Counts what is shown, so that a late refresh does not replace a newer page. */
let shown = 0;
let running = 0;
/** Entity tags of the page, and of its navigation and strip. */
const etags = { page: null, frame: null };
let freshAt = new Date();
let timer = 0;
/** When the page itself is to be refreshed, beside its navigation and strip. */
let pageDueAt = Infinity;
/** A server that answers nothing counts as lost after so long. */
const SILENCE_MS = 15_000;
/** A timer may fire a little early. */
const EARLY_MS = 100;
/** While the server does not answer it is asked so often. */
const LOST_S = 2;

// Requests.

function send(url, options = {}) {
  const headers = new Headers(options.headers);
  if (session) headers.set("Authorization", `Console ${session}`);
  return fetch(url, { ...options, headers, credentials: "same-origin", cache: "no-store" });
}

/** Shows the response to a request; a session that has ended is opened anew where it can be. */
async function present(response, place = {}) {
  if (!response.headers.get("Content-Type")?.startsWith("text/html")) {
    say((await response.text()).trim() || response.statusText);
    return;
  }
  let fault = "";
  if (session && response.redirected && new URL(response.url).pathname === `${HOME}/sign-in`) {
    session = null;
    if (place.isSignOut) tell("web_app_close");
    else fault = await signIn();
    if (session) return go(HOME);
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const isResult = place.isPost && !response.redirected;
  etags.page = response.headers.get("ETag");
  show(page, clean(new URL(isResult ? location.href : response.url)), { ...place, isResult });
  if (fault) say(fault);
}

async function go(url) {
  const target = new URL(url, location.href);
  await busy(async () => {
    const response = await send(target);
    await present(response, { hash: target.hash });
  });
}

async function act(form, button) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  const url = new URL(button?.getAttribute("formaction") ?? form.getAttribute("action"), location.href);
  const body = new URLSearchParams(new FormData(form, button));
  const isSignOut = url.pathname === `${HOME}/sign-out`;
  await busy(async () => present(await send(url, { method: "POST", body }), { isPost: true, isSignOut }));
  form.ariaBusy = null;
}

async function busy(work) {
  running += 1;
  try {
    await work();
    found();
  } catch (error) {
    lose(error);
  } finally {
    running -= 1;
  }
}

// The page.

/** Puts a page in place of the one that is shown: morphed where it is the same page, so that focus and scroll stay. */
function show(page, url, { isRefresh = false, isResult = false, hash = "" }) {
  const [before, after] = [document, page].map((each) => each.querySelector(".app"));
  const [former, latter] = [before, after].map((each) => each.querySelector("main").dataset.page);
  const isSame = former === latter && url.pathname === location.pathname;
  const anchors = focusAnchors();
  shown += 1;
  etags.frame = null;
  freshAt = new Date();
  document.title = page.title;
  if (isSame) Idiomorph.morph(before, after, { callbacks: isRefresh ? KEEP : isResult ? KEEP_KEYS : {} });
  else before.replaceWith(document.adoptNode(after));
  if (!isRefresh) remember(url);
  decorate();
  if (isSame) {
    if (document.activeElement === document.body) refocus(anchors);
  } else {
    const main = document.getElementById("main");
    scrollTo(0, 0);
    (main.querySelector("[autofocus]") ?? main).focus({ preventScroll: true });
  }
  if (isResult) document.querySelector("main > .notice, main form .notice")?.scrollIntoView({ block: "nearest" });
  if (hash) document.getElementById(decodeURIComponent(hash.slice(1)))?.scrollIntoView();
  schedule();
}

/** A refresh leaves alone: open menus, fields with text that is not saved, and the report of the last act. */
const KEEP = {
  beforeNodeMorphed: (old) => old.id !== "said" && !isEdited(old),
  beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("details, dialog")),
};

/** A form that comes back with faults or the result of a test comes without its key, which the server never returns. */
const KEEP_KEYS = { beforeNodeMorphed: (old) => old.type !== "password" };

function isEdited(node) {
  if (node instanceof HTMLInputElement && /checkbox|radio/.test(node.type)) return node.checked !== node.defaultChecked;
  if (node instanceof HTMLInputElement || node instanceof HTMLTextAreaElement) return node.value !== node.defaultValue;
  if (!(node instanceof HTMLSelectElement)) return false;
  const options = [...node.options];
  return options.some((option) => option.defaultSelected) && options.some((option) => option.selected !== option.defaultSelected);
}

function focusAnchors() {
  const anchors = [];
  for (let node = document.activeElement; node && node !== document.body; node = node.parentElement) {
    if (node.id) anchors.push(node.id);
    // A card that was decided leaves: the next one has the focus then.
    if (node.matches("li[id]")) anchors.push(node.nextElementSibling?.id, node.previousElementSibling?.id);
  }
  return anchors.filter(Boolean);
}

/** Moves the focus that a page has lost to the nearest place that is still there: never to a button, which acts. */
function refocus(anchors) {
  const place = anchors.map((id) => document.getElementById(id)).find(Boolean) ?? document.getElementById("main");
  if (!place.matches("a, button, input, select, textarea, summary")) place.tabIndex = -1;
  place.focus({ preventScroll: true });
}

function clean(url) {
  for (const name of REPORT) url.searchParams.delete(name);
  url.hash = "";
  return url;
}

function remember(url) {
  if (session) {
    if (visited.at(-1) !== url.href) visited.push(url.href);
    tell("web_app_setup_back_button", { is_visible: visited.length > 1 });
    tell("web_app_setup_closing_behavior", { need_confirmation: false });
    // With Telegram's fragment, so that a reload signs in again.
    history.replaceState(null, "", `${url.pathname}${url.search}#${launch}`);
  } else if (url.pathname === location.pathname) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
}

function say(text) {
  const line = document.createElement("p");
  line.className = "notice fail";
  line.textContent = text;
  document.getElementById("said").replaceChildren(line);
}

/** Says that the server does not answer, and of when the figures are. */
function lose(error) {
  console.warn(error);
  const lost = document.getElementById("lost");
  lost.querySelector("time").textContent = freshAt.toLocaleTimeString(document.documentElement.lang);
  lost.hidden = false;
  document.documentElement.dataset.lost = "";
}

function found() {
  document.getElementById("lost").hidden = true;
  delete document.documentElement.dataset.lost;
}

// Refreshing.

const live = () => document.getElementById("main").dataset;

/** The page is refreshed at its own interval, if it has one; its navigation and strip at that of the frame. */
function schedule() {
  clearTimeout(timer);
  if (!document.getElementById("nav")) return;
  pageDueAt = live().live ? freshAt.getTime() + live().live * 1000 : Infinity;
  const isLost = !document.getElementById("lost").hidden;
  const frameWait = (isLost ? LOST_S : live().frameLive) * 1000;
  const pageWait = pageDueAt - Date.now();
  timer = setTimeout(refresh, pageWait > 0 ? Math.min(pageWait, frameWait) : frameWait);
}

const mayRefresh = () => !document.hidden && !running && !document.querySelector("details[open], dialog[open], .dragged");

async function refresh(event) {
  clearTimeout(timer);
  const before = shown;
  if (document.getElementById("nav") && mayRefresh()) {
    const isPage = Boolean(live().live) && (Boolean(event) || Date.now() >= pageDueAt - EARLY_MS);
    try {
      await (isPage ? refreshPage(before) : refreshFrame(before));
      found();
    } catch (error) {
      lose(error);
    }
  }
  if (before === shown) schedule();
}

/** Asks for what is shown, unless it is unchanged. */
async function poll(url, part) {
  const headers = etags[part] ? { "If-None-Match": etags[part] } : {};
  const response = await send(url, { headers, signal: AbortSignal.timeout(SILENCE_MS) });
  if (response.status >= 500) throw new Error(response.statusText);
  return response;
}

async function refreshPage(before) {
  const response = await poll(clean(new URL(location.href)), "page");
  if (response.status === 304) freshAt = new Date();
  else if (before === shown && mayRefresh()) await present(response, { isRefresh: true });
  else await response.body?.cancel();
}

async function refreshFrame(before) {
  const response = await poll(new URL(`${HOME}/frame?page=${live().nav}`, location.origin), "frame");
  if (response.status === 304) return;
  if (response.redirected) {
    if (before === shown) await present(response, { isRefresh: true });
    return;
  }
  const parts = new DOMParser().parseFromString(await response.text(), "text/html");
  if (before !== shown) return;
  etags.frame = response.headers.get("ETag");
  for (const id of ["nav", "strip"]) {
    const [old, latest] = [document, parts].map((each) => each.getElementById(id));
    if (old && latest) Idiomorph.morph(old, latest, { callbacks: KEEP });
    else if (latest) document.getElementById("main").prepend(document.adoptNode(latest));
    else old?.remove();
  }
}

document.addEventListener("visibilitychange", refresh);

// Confirmations: in a dialog over the page, with the focus on the answer that changes nothing. Escape closes it.

async function ask(link) {
  await busy(async () => {
    const response = await send(link.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const question = page.getElementById("confirm");
    if (response.redirected || !question) return go(link.href);
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "confirm-h");
    const title = document.createElement("h2");
    title.id = "confirm-h";
    title.textContent = page.querySelector("h1").textContent;
    question.classList.remove("panel");
    dialog.append(title, document.adoptNode(question));
    dialog.addEventListener("close", () => { dialog.remove(); schedule(); });
    dialog.querySelector("[data-safe]").addEventListener("click", (event) => {
      event.preventDefault();
      event.stopPropagation();
      dialog.close();
    });
    document.querySelector(".app").append(dialog);
    dialog.showModal();
    dialog.querySelector("[data-safe]").focus();
  });
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  const isGet = (event.submitter?.formMethod || form.method) === "get";
  // Signing in sets a cookie: the browser does that by itself.
  if (isGet ? !session : !form.elements.namedItem("form")) return;
  event.preventDefault();
  if (isGet) go(`${form.action.split("?")[0]}?${new URLSearchParams(new FormData(form, event.submitter))}`);
  else act(form, event.submitter);
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  const link = event.target.closest("a[href]");
  const isPlain = !event.button && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (link?.matches("[data-confirm]") && isPlain) {
    event.preventDefault();
    ask(link);
    return;
  }
  if (!session || !link || link.origin !== location.origin || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  if (link.hasAttribute("download")) sendFile(link);
  else go(link.href);
});

/** Keys of a card that has the focus, by their place: letters differ between layouts. */
function pressOnCard(event) {
  const card = event.target.closest("li[id^=card-]");
  if (!card || event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.code === "KeyJ") card.nextElementSibling?.focus();
  else if (event.code === "KeyK") card.previousElementSibling?.focus();
  else if (event.code === "KeyC") card.querySelector("form[action$='/confirm'] button")?.click();
  else if (event.code === "KeyU") card.querySelector("form[action$='/undo'] button")?.click();
}

document.addEventListener("keydown", pressOnCard);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const menu = document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else document.querySelector("main [data-safe]")?.click();
});

addEventListener("popstate", () => { if (!session) go(location.href); });

/** Shows what works with scripts only. Mini Apps cannot download: there the bot sends the file to the operator. */
function decorate() {
  for (const hint of document.querySelectorAll("[data-scripted]")) hint.hidden = false;
  if (!session) return;
  for (const link of document.querySelectorAll("a[download]")) link.lastChild.textContent = ` ${document.getElementById("main").dataset.send}`;
}

async function sendFile(link) {
  const url = new URL(link.href);
  url.pathname += "/send";
  const body = new URLSearchParams({ form: document.querySelector("input[name=form]").value });
  await busy(async () => present(await send(url, { method: "POST", body }), { isPost: true }));
}

// Telegram.

function tell(type, data = {}) {
  if (window.TelegramWebviewProxy) window.TelegramWebviewProxy.postEvent(type, JSON.stringify(data));
  else if (window.parent !== window) window.parent.postMessage(JSON.stringify({ eventType: type, eventData: data }), TELEGRAM_WEB);
}

function hear(type, data) {
  if (type === "theme_changed") paint(data?.theme_params ?? {});
  if (type !== "back_button_pressed" || visited.length < 2) return;
  visited.pop();
  go(visited.at(-1));
}

/** Takes over Telegram's colours; those of states stay, since they have to keep their contrast. */
function paint(theme) {
  const root = document.documentElement.style;
  for (const [name, colour] of Object.entries(theme)) {
    if (/^#[0-9a-f]{6}$/i.test(colour)) root.setProperty(`--tg-${name.replaceAll("_", "-")}`, colour);
  }
  if (!/^#[0-9a-f]{6}$/i.test(theme.bg_color ?? "")) return;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(theme.bg_color.slice(at, at + 2), 16));
  root.colorScheme = 0.299 * red + 0.587 * green + 0.114 * blue < 128 ? "dark" : "light";
}

function parseTheme() {
  try {
    return JSON.parse(launch.get("tgWebAppThemeParams") ?? "{}") ?? {};
  } catch {
    return {};
  }
}

/** Exchanges Telegram's init data for a session; returns why it is refused, empty if it is not. */
async function signIn() {
  const body = new URLSearchParams({ init_data: initData });
  const answer = await (await fetch(`${HOME}/sign-in/telegram`, { method: "POST", body })).json();
  session = answer.session ?? null;
  return answer.fault ?? "";
}

if (initData) {
  // Clients call one of these by their platform.
  const receiver = { receiveEvent: hear };
  window.Telegram = { WebView: receiver };
  window.TelegramGameProxy = receiver;
  window.TelegramGameProxy_receiveEvent = hear;
  addEventListener("message", (event) => {
    if (event.source !== window.parent || event.origin !== TELEGRAM_WEB) return;
    try {
      const { eventType, eventData } = JSON.parse(event.data);
      hear(eventType, eventData);
    } catch { /* not an event of Telegram's */ }
  });
  document.addEventListener("input", () => tell("web_app_setup_closing_behavior", { need_confirmation: true }));
  paint(parseTheme());
  tell("web_app_ready");
  tell("web_app_expand");
  await busy(async () => {
    const fault = await signIn();
    if (session) await go(HOME);
    else say(fault);
  });
} else {
  const { hash } = location;
  history.replaceState(null, "", `${clean(new URL(location.href))}${hash}`);
  decorate();
  schedule();
}
