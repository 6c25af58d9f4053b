// One job's page: both videos at once, and a command that is copied. The page says all that is needed without it.

// The input repeats where the speech is longer, so it is where the output is, modulo its own length.
function together(input, output) {
  const follow = () => {
    const at = output.currentTime % (input.duration || Infinity);
    if (Math.abs(input.currentTime - at) > 0.15) input.currentTime = at;
  };
  input.muted = true;
  output.addEventListener("timeupdate", follow);
  output.addEventListener("seeked", follow);
  output.addEventListener("ratechange", () => { input.playbackRate = output.playbackRate; });
  output.addEventListener("play", () => input.play());
  for (const name of ["pause", "ended"]) output.addEventListener(name, () => input.pause());
  follow();
  return Promise.all([input.play(), output.play()]);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("#together, [data-copies]");
  if (!button) return;
  if (button.id === "together") {
    button.disabled = true;
    await together(document.getElementById("in-video"), document.getElementById("output"));
    return;
  }
  const text = document.getElementById(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {  // a page on plain http from another machine may not write there
    getSelection().selectAllChildren(text);
    button.textContent = "Selected: press Ctrl+C";
  }
});
