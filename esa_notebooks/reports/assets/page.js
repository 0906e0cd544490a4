(function () {
  "use strict";
  if (document.body.showPopover) document.documentElement.classList.add("scripted");
  var here = null;
  function opened() {
    var name = location.hash.slice(1), drawer = document.getElementById(name);
    if (here) here.classList.remove("here");
    here = null;
    if (!drawer || !drawer.classList.contains("from") || !drawer.showPopover) return;
    var shown = document.querySelector('main [popovertarget="' + name + '"]');
    here = shown && shown.closest(".numbers > div, tr");
    if (here) {
      here.classList.add("here");
      here.scrollIntoView({ block: window.innerWidth < 768 ? "start" : "center" });   // a phone's drawer comes from below
    }
    if (!drawer.matches(":popover-open")) drawer.showPopover();
  }
  window.addEventListener("hashchange", opened);
  window.addEventListener("load", opened);
  opened();
  function copies(button, text) {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      navigator.clipboard.writeText(text()).then(function () { button.textContent = "Copied"; },
        function () { button.textContent = "Copying was refused"; });
    });
  }
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    copies(button, function () { return button.previousElementSibling.textContent; });
  });
  document.querySelectorAll("[data-link]").forEach(function (button) {
    copies(button, function () { return location.href.split("#")[0] + "#" + button.getAttribute("data-link"); });
  });
  document.addEventListener("click", function (event) {
    var mark = event.target.closest && event.target.closest('a.mark, .address a');
    if (mark && mark.hash === location.hash) opened();
  });
  var all = document.getElementById("all-code");
  if (all) {
    all.hidden = false;
    all.addEventListener("click", function () {
      var open = all.getAttribute("aria-pressed") !== "true";
      document.querySelectorAll("details.code").forEach(function (d) { d.open = open; });
      all.setAttribute("aria-pressed", String(open));
      all.textContent = open ? "Hide all code" : "Show all code";
    });
  }
  document.querySelectorAll("details.code").forEach(function (d) {
    if (location.hash === "#" + d.id) d.open = true;
  });
  document.addEventListener("click", function (event) {
    var link = event.target.closest && event.target.closest('a[href^="#cell-"]');
    if (!link) return;
    var drawer = link.closest("[popover]");
    if (drawer && drawer.matches(":popover-open")) drawer.hidePopover();
    var cell = document.getElementById(link.getAttribute("href").slice(1));
    if (cell) cell.open = true;
  });
})();
