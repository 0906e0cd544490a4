(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) return;
  var words = document.getElementById("words"), status = document.getElementById("status"), said = document.getElementById("count");
  var rows = Array.prototype.map.call(document.querySelectorAll("#runs tbody tr"), function (row) {
    return { row: row, text: row.textContent.toLowerCase(), status: row.getAttribute("data-status") };
  });
  function apply() {
    var asked = words.value.toLowerCase().split(/\s+/).filter(Boolean), n = 0;
    rows.forEach(function (r) {
      var fits = (!status.value || r.status === status.value) && asked.every(function (w) { return r.text.indexOf(w) >= 0; });
      r.row.hidden = !fits;
      if (fits) n += 1;
    });
    said.textContent = (n === rows.length ? "" : n + " of ") + rows.length + (rows.length === 1 ? " run" : " runs");
  }
  form.hidden = false;
  words.addEventListener("input", apply);
  status.addEventListener("change", apply);
  apply();
})();
