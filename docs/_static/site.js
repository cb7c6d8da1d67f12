// Two things that the theme's pages leave to the eye, said to who reads by ear.
document.addEventListener("DOMContentLoaded", () => {
  // The arrows that open and close the parts of the sidebar.
  for (const arrow of document.querySelectorAll("details > summary")) {
    if (!arrow.textContent.trim()) {
      arrow.setAttribute("aria-label", "Show or hide the pages below");
    }
  }
  // The arguments of a signature that has several lines: a list, though it is written as definitions.
  for (const list of document.querySelectorAll("dt.sig > dl")) {
    list.setAttribute("role", "list");
    for (const item of list.children) {
      item.setAttribute("role", "listitem");
    }
  }
});
