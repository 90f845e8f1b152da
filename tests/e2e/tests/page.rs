//! `mesh-ctl dashboard` in a browser: the shop's live graph, what is denied and why, and a crowd.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mesh_e2e::{Browser, Mesh, NODES, PATIENCE, Page, Shop, Verdict, edge, picture, shows};
use mesh_lab::{Place as _, Pod, binary, wait_until};
use serde_json::json;

/// The shopper has no business with the payment service.
const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/order]}}]}]
";

/// The status and the body that curl gets.
fn curl(arguments: &[&str]) -> Result<(u16, String)> {
    let output = Command::new("curl").args(["-s", "-m", "10", "-w", "\n%{http_code}"]).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').context("curl said nothing")?;
    Ok((code.parse().with_context(|| text.clone())?, body.to_owned()))
}

#[test]
fn the_page_shows_the_shops_traffic_and_why_a_connection_is_denied() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.lab.apply("policies.yaml", POLICIES)?;
    let shop = Shop::open(&mesh)?;
    let pod = |name: &str| shop.pods.iter().find(|pod| pod.name() == name).with_context(|| name.to_owned());
    let outside = mesh.lab.outside("laptop")?;
    let (shopper, frontend) = (pod("shopper")?, pod("frontend-v1")?.ipv4());
    let knock = "while :; do curl -s -m 5 -o /dev/null http://payment.shop:9090/; sleep 0.3; done";
    let _knocking = shopper.spawn(&["sh", "-c", knock])?;
    let look = format!("while :; do curl -s -m 5 -o /dev/null http://{frontend}:8080/healthz; sleep 0.5; done");
    let _looking = outside.spawn(&["sh", "-c", &look])?;
    let page = Page::serve(&NODES.map(|node| mesh.lab.admin_socket(node)), &[])?;
    let mut browser = Browser::start(1280, 800)?;
    browser.open(page.url())?;
    browser.wait("the page to be live", "document.getElementById('state')?.textContent === 'live'")?;

    shows(&mut browser, "shop/frontend-v1", "shop/cart-v1", "hbone")?;
    shows(&mut browser, "shop/order-v1", "shop/notification-v1", "direct")?;
    shows(&mut browser, &outside.ipv4().to_string(), "shop/frontend-v1", "plaintext")?;
    denied_edge(&mut browser)?;
    keyboard(&mut browser)?;
    nodes_and_strict(&mut browser, &outside.ipv4().to_string())?;
    looks(&mut browser)?;
    a_change_shows_within_two_seconds(&mut browser, pod("cart-v1")?, pod("product-v2")?)?;
    Ok(())
}

/// It is red, names the policy, and a click on its line in the graph says why.
fn denied_edge(browser: &mut Browser) -> Result<()> {
    shows(browser, "shop/shopper", "shop/payment-v1", "denied")?;
    let denied = edge("shop/shopper", "shop/payment-v1", "denied");
    let named = format!("{denied}.textContent.includes('AuthorizationPolicy shop/payment')");
    browser.wait("the policy's name on the edge", &named)?;
    browser.wait("the graph to stand still", STILL)?;
    let middle = browser.eval("meshMiddleOf('shop/shopper', 'shop/payment-v1')")?;
    let at = |name: &str| middle[name].as_f64().context("no place");
    browser.click(at("x")?, at("y")?)?;
    let details = "document.getElementById('details').innerText";
    for part in ["shop/shopper → shop/payment-v1", "by AuthorizationPolicy shop/payment", "Last errors"] {
        browser.wait(part, &format!("{details}.includes('{part}')"))?;
    }
    let why = "document.querySelector('#details [data-answer=Why]').innerText";
    browser.wait("why", &format!("{why}.includes('shop/payment') && {why}.includes('source.principals')"))?;
    picture(browser, "dashboard-denied")?;
    browser.press("Escape")?;
    browser.wait("the details to close", "document.getElementById('details').hidden")
}

/// Whether two looks at the graph, a little apart, see the same.
const STILL: &str = "(async () => {
  const at = () => JSON.stringify(meshMiddleOf('shop/shopper', 'shop/payment-v1'));
  const before = at();
  for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
  return before === at();
})()";

/// The list of edges by keys alone, and the tabs.
fn keyboard(browser: &mut Browser) -> Result<()> {
    browser.eval("document.querySelector('#edges button').focus()")?;
    browser.press("ArrowDown")?;
    let second = "document.activeElement === document.querySelectorAll('#edges button')[1]";
    browser.wait("the second edge to have the focus", second)?;
    browser.press("Enter")?;
    browser.wait("its details", "!document.getElementById('details').hidden")?;
    let kept = "document.activeElement.getAttribute('aria-pressed') === 'true'";
    browser.wait("the focus to stay on the edge", kept)?;
    browser.press("Escape")?;
    browser.press("/")?;
    browser.wait("the search to have the focus", "document.activeElement.id === 'find'")?;
    for letter in ["c", "a", "r", "t"] {
        browser.press(letter)?;
    }
    let only = "[...document.querySelectorAll('#edges button')].every((it) => it.textContent.includes('cart'))";
    browser.wait("edges of cart alone", only)?;
    browser.eval(
        "document.getElementById('find').value = ''; document.getElementById('find').dispatchEvent(new Event('input'))",
    )?;
    browser.eval("document.getElementById('tab-graph').focus()")?;
    browser.press("ArrowRight")?;
    browser.wait("the Services' view", "!document.getElementById('view-services').hidden")?;
    browser.press("ArrowRight")?;
    browser.wait("the nodes' view", "!document.getElementById('view-nodes').hidden")
}

fn nodes_and_strict(browser: &mut Browser, outside: &str) -> Result<()> {
    for node in NODES {
        let card = format!("document.querySelector('[data-node={node}]')?.innerText ?? ''");
        for part in ["all attached", "spiffe://cluster.local/ns/shop/sa/"] {
            browser.wait(part, &format!("({card}).includes('{part}')"))?;
        }
    }
    picture(browser, "dashboard-nodes")?;
    browser.press("ArrowRight")?;
    let card = "document.querySelector('[data-namespace=shop]')?.innerText ?? ''";
    for part in ["Not ready for STRICT", "8 of 8", &format!("{outside} -> shop/frontend-v1")] {
        browser.wait(part, &format!("({card}).includes('{part}')"))?;
    }
    picture(browser, "dashboard-strict")?;
    browser.press("ArrowRight")?;
    browser.wait("the graph's view", "!document.getElementById('view-graph').hidden")
}

/// Dark and light, by the system's word and by the button; a window of a phone.
fn looks(browser: &mut Browser) -> Result<()> {
    let ground = "getComputedStyle(document.body).backgroundColor";
    browser.prefer("dark")?;
    browser.wait("a dark ground", &format!("{ground} === 'rgb(20, 23, 27)'"))?;
    picture(browser, "dashboard-dark")?;
    browser.eval("document.getElementById('theme').click()")?;
    browser.wait("a light ground", &format!("{ground} === 'rgb(251, 251, 250)'"))?;
    picture(browser, "dashboard-light")?;
    browser.resize(390, 800)?;
    browser.wait("nothing wider than a phone", "document.documentElement.scrollWidth <= 390")?;
    let both = "['graph', 'edges'].every((id) => document.getElementById(id).getBoundingClientRect().height > 100)";
    browser.wait("graph and list on a phone", both)?;
    picture(browser, "dashboard-phone")?;
    browser.resize(1280, 800)
}

fn a_change_shows_within_two_seconds(browser: &mut Browser, from: &Pod, to: &Pod) -> Result<()> {
    let before = format!("{} === null", edge("shop/cart-v1", "shop/product-v2", "direct"));
    browser.wait("no traffic from cart to product yet", &before)?;
    from.exec(&["curl", "-s", "-o", "/dev/null", &format!("http://{}:8080/healthz", to.ipv4())])?.success()?;
    let shown = format!("{} !== null", edge("shop/cart-v1", "shop/product-v2", "direct"));
    // As the page is to be; the machine that tests it has other things to do as well.
    browser.wait_within(Duration::from_secs(2), "the new edge", &shown)
}

#[test]
fn without_the_token_nothing_is_told_and_nothing_is_ever_written() -> Verdict {
    let page = Page::serve(&["/nonexistent/admin.sock".into()], &[])?;
    let (base, token) = page.parts()?;
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(token.len(), 32);
    assert_eq!(curl(&[base])?.0, 200);
    for path in ["api/stream", "api/edge", "api/why", "api/request", "api/nothing"] {
        let url = format!("{base}{path}");
        assert_eq!(curl(&[&url])?.0, 401, "{path}");
        assert_eq!(curl(&["-H", "authorization: Bearer ", &url])?.0, 401, "{path}");
        assert_eq!(curl(&["-H", &bearer[..bearer.len() - 1], &url])?.0, 401, "{path}");
        assert_eq!(curl(&[&format!("{url}?token={token}")])?.0, 401, "{path}");
        assert_eq!(curl(&["-H", &bearer, "-H", "host: mesh.example", &url])?.0, 403, "{path}");
        assert_eq!(curl(&["-H", &bearer, "-X", "POST", &url])?.0, 405, "{path}");
    }
    assert_eq!(
        curl(&["-H", &bearer, &format!("{base}api/edge")])?,
        (200, r#"{"connections":[],"requests":[]}"#.to_owned())
    );
    let (code, body) = curl(&["-H", &bearer, &format!("{base}api/why?src=a&dst=b")])?;
    assert!(code == 502 && body.contains("no daemon at /nonexistent/admin.sock"), "{code} {body}");

    let mut browser = Browser::start(800, 600)?;
    browser.open(&format!("{base}#token=wrong"))?;
    let state = "document.getElementById('state')?.textContent ?? ''";
    browser.wait("a sentence about the token", &format!("({state}).startsWith('the token is missing or wrong')"))?;
    let output = Command::new(binary("mesh-ctl")?).args(["dashboard", "--listen", "0.0.0.0:0"]).output();
    let output = output.context("starting mesh-ctl")?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not of loopback"));
    Ok(())
}

/// Stands in for a daemon of a cluster that no machine for tests can hold: 500 services that call each other.
fn crowd(listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let read = stream.read(&mut head)?;
    let path = String::from_utf8_lossy(&head[..read]).split(' ').nth(1).unwrap_or_default().to_owned();
    let list = json!({"items": [], "total": 0, "generation": 1});
    if !path.starts_with("/v1/flows") {
        // No status: the page says that it cannot be read, and shows the flows.
        return write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{list}");
    }
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    let party = |number: usize| json!({"namespace": format!("ns-{}", number % 20), "workload": format!("service-{number}"), "pod": "p"});
    loop {
        for number in 0..1000 {
            let (from, to) = (number % 500, (number * 7 + 13 + number / 500) % 500);
            let refused = number % 50 == 0;
            let flow = json!({
                "atMilliseconds": 1, "event": if refused { "refused" } else { "opened" }, "id": number, "reporter": "source",
                "source": party(from), "destination": party(to), "security": "mutual_tls",
                "bytesFromClient": 10, "bytesToClient": 10, "end": if refused { json!("unreachable") } else { json!(null) },
                "detail": "<img src=x onerror=\"document.title='injected'\"> & <script>document.title='injected'</script>",
            });
            writeln!(stream, "{flow}")?;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn five_hundred_services_are_shown_dragged_smoothly_and_inject_nothing() -> Verdict {
    let dir = tempfile::tempdir().context("a folder")?;
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).context("binding")?;
    thread::spawn(move || crowd(&listener));
    let page = Page::serve(&[socket], &[])?;
    let mut browser = Browser::start(1280, 800)?;
    let begun = Instant::now();
    browser.open(page.url())?;
    let painted = "performance.getEntriesByName('first-contentful-paint').length === 1";
    browser.wait("the first paint", painted)?;
    let first = browser.eval("performance.getEntriesByName('first-contentful-paint')[0].startTime")?;
    browser.wait("500 services' edges", "document.querySelectorAll('#edges button').length === 600")?;
    let size =
        browser.eval("performance.getEntriesByType('resource').reduce((sum, it) => sum + it.decodedBodySize, 0)")?;
    assert!(size.as_f64().is_some_and(|size| size > 10_000.0 && size < 300_000.0), "{size} bytes of page");
    let dragged = browser.eval(DRAG)?;
    eprintln!("first paint {first} ms, all after {:?}, {size} bytes, dragged: {dragged}", begun.elapsed());
    // What a frame costs: one drawing, however many events came, of 1,000 edges with two lines at most and 500 services.
    let [frames, drawings, strokes] = ["frames", "drawings", "strokes"].map(|what| dragged[what].as_u64().unwrap_or(0));
    assert!(drawings > frames / 2 && drawings <= frames + 1, "{dragged}");
    assert!(strokes > 1000 && strokes <= (2 * 1000 + 500) * drawings, "{dragged}");
    assert_eq!(dragged["moved"], true, "{dragged}");
    browser.eval(
        "[...document.querySelectorAll('#edges button')].find((it) => it.textContent.includes('failed')).click()",
    )?;
    browser.wait(
        "the error's text, as text",
        "document.getElementById('details').innerText.includes('<img src=x onerror=')",
    )?;
    assert_eq!(browser.eval("document.title")?, "Mesh");
    assert_eq!(browser.eval("document.querySelectorAll('#details img, #details script').length")?, 0);
    picture(&mut browser, "dashboard-500-services")?;
    Ok(())
}

/// Drags the graph for 30 frames, three events in each, and counts what is drawn by it.
const DRAG: &str = "(async () => {
  const canvas = document.getElementById('graph');
  const pen = canvas.getContext('2d');
  const seen = { frames: 0, drawings: 0, strokes: 0 };
  const counted = (name, count) => {
    const plain = pen[name];
    pen[name] = (...given) => { seen[count]++; return plain.apply(pen, given); };
  };
  counted('clearRect', 'drawings');
  counted('stroke', 'strokes');
  const send = (type, x) => canvas.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX: x, clientY: 20, bubbles: true }));
  canvas.setPointerCapture = () => {};
  const before = canvas.toDataURL();
  const begun = performance.now();
  send('pointerdown', 20);
  while (seen.frames < 30) {
    for (let step = 0; step < 3; step++) send('pointermove', 20 + 3 * seen.frames + step);
    await new Promise(requestAnimationFrame);
    seen.frames++;
  }
  send('pointerup', 20 + 3 * seen.frames);
  const seconds = (performance.now() - begun) / 1000;
  delete pen.clearRect;
  delete pen.stroke;
  return { ...seen, rate: seen.frames / seconds, moved: canvas.toDataURL() !== before };
})()";

#[test]
fn a_hundred_viewers_are_served_and_those_that_leave_are_forgotten() -> Verdict {
    let page = Page::serve(&["/nonexistent/admin.sock".into()], &[])?;
    let (base, token) = page.parts()?;
    let view = || {
        let (url, header) = (format!("{base}api/stream"), format!("authorization: Bearer {token}"));
        Command::new("curl").args(["-sN", "-H", &header, &url]).stdout(Stdio::piped()).spawn()
    };
    let mut viewers = (0..100).map(|_| view()).collect::<Result<Vec<_>, _>>().context("starting curl")?;
    for viewer in &mut viewers {
        let mut line = String::new();
        // Kept open: curl would end at the next event.
        BufReader::new(viewer.stdout.as_mut().context("no output")?).read_line(&mut line).context("reading")?;
        assert!(line.starts_with("event: "), "{line:?}");
    }
    let open = || Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{}/fd", page.id()))?.count());
    assert!(open()? > 100);
    for mut viewer in viewers {
        viewer.kill().and_then(|()| viewer.wait()).context("ending curl")?;
    }
    wait_until("the viewers to be forgotten", PATIENCE, || Ok((open()? < 30).then_some(())))?;
    Ok(())
}
