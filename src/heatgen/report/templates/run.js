
const data = JSON.parse(document.getElementById("data").textContent);
for (const figure of document.querySelectorAll("[data-chart]")) chart(figure, data.charts[figure.dataset.chart]);

// The frames of a film are tiles of one picture; the slider and the button choose the one that the canvas shows.
for (const figure of document.querySelectorAll(".film")) {
  const [canvas, picture, slider, button, output] =
    ["canvas", "img", "input", "button", "output"].map(name => figure.querySelector(name));
  const labels = JSON.parse(figure.dataset.labels);
  const [columns, width, height] = ["columns", "width", "height"].map(key => Number(figure.dataset[key]));
  let timer = null;

  function show() {
    const frame = Number(slider.value), column = frame % columns, row = Math.floor(frame / columns);
    canvas.getContext("2d").drawImage(picture, column * width, row * height, width, height, 0, 0, width, height);
    output.textContent = labels[frame];
    slider.setAttribute("aria-valuetext", labels[frame]);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  button.onclick = () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    button.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) stop();
    }, 80);
    show();
  };
  slider.oninput = () => { stop(); show(); };
  picture.decode().then(show);
}
