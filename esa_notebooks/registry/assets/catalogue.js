(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) return;
  var table = document.getElementById("models"), body = table.tBodies[0], said = document.getElementById("count");
  var nobody = document.getElementById("nobody"), words = document.getElementById("words"), reset = document.getElementById("reset");
  var more = document.getElementById("more"), FIRST = 40, most = FIRST;   // rows laid out at once: what a reader can look through
  var choices = Array.prototype.slice.call(form.querySelectorAll("select"));
  var rows = Array.prototype.map.call(body.rows, function (row, n) {
    return { row: row, n: n, text: row.textContent.toLowerCase(), is: choices.map(function (c) {
      return " " + (row.getAttribute("data-" + c.id) || "") + " ";
    }) };
  });
  function wanted() {
    var asked = [];
    if (words.value) asked.push("words=" + encodeURIComponent(words.value));
    choices.forEach(function (c) { if (c.value) asked.push(c.id + "=" + encodeURIComponent(c.value)); });
    return asked.join("&");
  }
  function show() {
    var asked = words.value.toLowerCase().split(/\s+/).filter(Boolean), chosen = choices.map(function (c) { return c.value && " " + c.value + " "; });
    var fit = rows.filter(function (r) {
      return chosen.every(function (c, i) { return !c || r.is[i].indexOf(c) >= 0; }) && asked.every(function (w) { return r.text.indexOf(w) >= 0; });
    });
    body.replaceChildren.apply(body, fit.slice(0, most).map(function (r) { return r.row; }));
    said.textContent = (fit.length === rows.length ? "" : fit.length + " of ") + rows.length + (rows.length === 1 ? " model" : " models");
    nobody.hidden = fit.length > 0;
    reset.hidden = !wanted();
    more.hidden = fit.length <= most;
    more.textContent = "Show the other " + (fit.length - most);
  }
  function apply() { most = FIRST; show(); }
  function everything() { most = Infinity; show(); }
  function remember() {
    var hash = wanted();
    try { history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search); } catch (e) { return; }
  }
  function changed() { apply(); remember(); }
  function recall(hash) {
    var asked = {}, known = 0;
    hash.replace(/^#/, "").split("&").forEach(function (part) {
      var at = part.indexOf("=");
      try { if (at > 0) asked[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (e) { return; }
    });
    choices.forEach(function (c) {
      if (!(c.id in asked)) { c.value = ""; return; }
      c.value = asked[c.id];
      if (c.value !== asked[c.id]) c.value = "";
      else known += 1;
    });
    words.value = asked.words || "";
    apply();
    return known > 0 || Boolean(asked.words);
  }
  form.hidden = false;
  words.addEventListener("input", apply);
  words.addEventListener("change", remember);
  choices.forEach(function (c) { c.addEventListener("change", changed); });
  reset.addEventListener("click", function () { recall(""); remember(); words.focus(); });
  more.addEventListener("click", everything);
  window.addEventListener("beforeprint", everything);
  document.querySelectorAll("a[data-filter]").forEach(function (link) {
    link.addEventListener("click", function () { recall(link.getAttribute("data-filter")); setTimeout(remember, 0); });
  });
  window.addEventListener("hashchange", function () { if (location.hash.indexOf("=") > 0) recall(location.hash); });
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
  heads.forEach(function (head, column) {
    var name = head.textContent, button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = name;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      rows.forEach(function (r) { r.key = r.row.cells[column].getAttribute("data-sort") || ""; });
      rows.sort(function (a, b) {
        if (!a.key !== !b.key) return a.key ? -1 : 1;   // what is not known stands last, in either direction
        var x = Number(a.key), y = Number(b.key);
        var by = x === x && y === y ? x - y : a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
        return down * by || a.n - b.n;
      });
      show();
    });
  });
  if (location.hash.indexOf("=") > 0 && recall(location.hash)) document.getElementById("all").scrollIntoView();
  else apply();
})();
