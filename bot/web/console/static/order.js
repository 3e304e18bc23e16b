// The order of the list of providers: a card is dragged by its grip, with mouse, pen or finger, or moved by Alt and an arrow.
// A move submits the form of the card's own buttons with another place; console.js sends it and shows the page after it.

const cards = () => [...document.querySelectorAll("li.card[data-position]")];
const isMoving = () => document.querySelector("form.rank[aria-busy=true]") !== null;
/** The card that is dragged, and the place that it had. */
let dragged = null;

document.addEventListener("pointerdown", (event) => {
  const grip = event.target.closest(".grip");
  if (!grip || event.button || dragged || isMoving()) return;
  event.preventDefault();
  const card = grip.closest("li.card");
  dragged = { card, next: card.nextElementSibling, pointer: event.pointerId };
  card.classList.add("dragged");
  grip.setPointerCapture(event.pointerId);
});

document.addEventListener("pointermove", (event) => {
  if (event.pointerId !== dragged?.pointer) return;
  const { card } = dragged;
  const middle = (each) => { const box = each.getBoundingClientRect(); return box.top + box.height / 2; };
  // The others move around it: an element that is taken out of the page loses its pointer.
  while (card.previousElementSibling && event.clientY < middle(card.previousElementSibling)) card.after(card.previousElementSibling);
  while (card.nextElementSibling && event.clientY > middle(card.nextElementSibling)) card.before(card.nextElementSibling);
  const edge = 60;
  if (event.clientY < edge) scrollBy(0, -12);
  else if (event.clientY > innerHeight - edge) scrollBy(0, 12);
});

document.addEventListener("pointerup", (event) => {
  if (event.pointerId !== dragged?.pointer) return;
  const { card } = dragged;
  const place = cards().indexOf(card) + 1;
  drop();
  if (place !== Number(card.dataset.position)) move(card, place);
});

document.addEventListener("pointercancel", (event) => { if (event.pointerId === dragged?.pointer) putBack(); });

function drop() {
  dragged.card.classList.remove("dragged");
  dragged = null;
}

function putBack() {
  dragged.card.parentElement.insertBefore(dragged.card, dragged.next);
  drop();
}

/** Submits the form of a card's order with another place. */
function move(card, place) {
  const form = card.querySelector("form.rank");
  const button = document.createElement("button");
  button.name = "to";
  button.value = place;
  button.hidden = true;
  form.append(button);
  card.focus({ preventScroll: true });
  form.requestSubmit(button);
  button.remove();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && dragged) return putBack();
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const card = event.target.closest("li.card[data-position]");
  if (!step || !card || !event.altKey || event.ctrlKey || event.metaKey || dragged || isMoving()) return;
  event.preventDefault();
  const place = Number(card.dataset.position) + step;
  if (place >= 1 && place <= cards().length) move(card, place);
});
