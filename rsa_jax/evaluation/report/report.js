"use strict";
{
  const { names, videos, cells, left_out } = JSON.parse(document.getElementById("cells").textContent);
  const plot = document.getElementById("plot"), marker = document.getElementById("marker");
  const text = document.getElementById("cell"), size = names.length;
  const counts = new Map(cells.map(([row, column, count]) => [row * size + column, count]));
  let place = [0, 0];

  const show = (row, column) => {
    place = [row, column].map((number) => Math.min(Math.max(number, 0), size - 1));
    [row, column] = place;
    const count = counts.get(row * size + column) ?? (left_out ? `at most ${Math.min(left_out, videos[row])}` : 0);
    const taken = row === column ? "predicted right" : `taken for ${column} ${names[column]}`;
    text.textContent = `${row} ${names[row]}, ${taken}: ${count} of ${videos[row]} videos`;
    marker.hidden = false;
    Object.assign(marker.style, { left: `${100 * column / size}%`, top: `${100 * row / size}%` });
    Object.assign(marker.style, { width: `calc(${100 / size}% + 6px)`, height: `calc(${100 / size}% + 6px)` });
  };
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    show(Math.floor((event.clientY - box.top) / box.height * size), Math.floor((event.clientX - box.left) / box.width * size));
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("keydown", (event) => {
    if (event.key in steps) {
      event.preventDefault();
      show(place[0] + steps[event.key][0], place[1] + steps[event.key][1]);
    }
  });
}
