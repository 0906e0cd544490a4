(function () {
  "use strict";
  function opened() {
    var name = decodeURIComponent(location.hash.slice(1));
    var drawer = name.indexOf("result-") === 0 && document.getElementById(name);
    if (drawer && drawer.showPopover && !drawer.matches(":popover-open")) drawer.showPopover();
  }
  window.addEventListener("hashchange", opened);
  opened();
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      var text = button.previousElementSibling.textContent;
      navigator.clipboard.writeText(text).then(function () { button.textContent = "Copied"; },
        function () { button.textContent = "Copying was refused"; });
    });
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
