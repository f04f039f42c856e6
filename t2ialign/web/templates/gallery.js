const grid = document.getElementById("cards"), controls = ["reward", "order", "words"];
const cards = [...grid.children].map(card => ({
  card, text: card.querySelector("figcaption").textContent.toLowerCase(),
  values: JSON.parse(card.dataset.values), of: JSON.parse(card.dataset.of)
}));
function arrange() {
  const [reward, order, words] = controls.map(id => document.getElementById(id).value);
  const sign = Number(order), column = Number(reward);
  cards.sort((a, b) => sign * (a.values[column] - b.values[column]));
  for (const { card, of, text } of cards) {
    card.hidden = !of.includes(column) || !text.includes(words.toLowerCase());
    grid.append(card);
  }
}
for (const id of controls) document.getElementById(id).addEventListener("input", arrange);
arrange();
