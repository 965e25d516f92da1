// What is wider than the window can be scrolled with the keyboard: it gets the focus.
const reach = () =>
  document.querySelectorAll("pre, .table-wrapper, div.math").forEach((part) => {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  });
addEventListener("load", reach);
addEventListener("resize", reach);
