//! `mesh-ctl dashboard` close up: what passes an edge now, how edges are drawn, the graph by its keys, nodes' generations; and that
//! daemons are asked once, however many look.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, copy};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use mesh_e2e::{Browser, Mesh, NODES, PATIENCE, Page, STORE, Shop, Store, Verdict, ctl_json, edge, shows};
use mesh_lab::wait_until;

#[test]
fn an_edge_shows_what_passes_now_and_is_drawn_as_it_is_secured() -> Verdict {
    let mesh = Mesh::start()?;
    let _shop = Shop::open(&mesh)?;
    let store = Store::open(&mesh)?;
    let page = Page::serve(
        &NODES.map(|node| mesh.lab.admin_socket(node)),
        &[mesh.lab.waypoint_socket(STORE, store.waypoint.name())],
    )?;
    let mut browser = Browser::start(1280, 800)?;
    browser.open(page.url())?;
    browser.wait("the page to be live", "document.getElementById('state')?.textContent === 'live'")?;
    flows_now(&mut browser)?;
    styles(&mut browser)?;
    keys_of_the_graph(&mut browser)?;
    generations(&mut browser, &mesh)
}

/// Requests, by whoever sees them: behind a waypoint no node knows of a connection from the client to the server.
fn flows_now(browser: &mut Browser) -> Verdict {
    for (from, to, way, told) in [
        (
            "store/buyer",
            "store/item-v1",
            "waypoint",
            r"buyer.* → item-v1.*, GET \/\S* 200 in [0-9.]+ ms.*, by the waypoint",
        ),
        (
            "shop/order-v1",
            "shop/payment-v1",
            "hbone",
            r"order-v1.* → payment-v1.*, 200 grpc 0 in [0-9.]+ ms, by the node",
        ),
    ] {
        shows(browser, from, to, way)?;
        // Asked for once, when the edge is chosen.
        let button = edge(from, to, way);
        let flows = "document.querySelector('#details [data-answer=\"Flows now\"]')?.innerText ?? 'asking'";
        let told = format!(
            "(async () => {{ {button}?.click(); let said = 'asking'; \
             for (let frame = 0; said === 'asking' && frame < 600; frame++) {{ await new Promise(requestAnimationFrame); said = {flows}; }} \
             document.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Escape' }})); return /{told}/.test(said); }})()"
        );
        browser.wait(&format!("the flows of {from} to {to}"), &told)?;
    }
    Ok(())
}

/// Counts what the graph is drawn with.
const SPY: &str = "(() => {
  const pen = document.getElementById('graph').getContext('2d');
  globalThis.meshDrawn = { dashes: [], locks: 0 };
  const [dash, fill] = [pen.setLineDash.bind(pen), pen.fillRect.bind(pen)];
  pen.setLineDash = (parts) => { meshDrawn.dashes.push(parts.join()); dash(parts); };
  pen.fillRect = (x, y, width, height) => { if (width === 8 && height === 6) meshDrawn.locks++; fill(x, y, width, height); };
})()";

/// In the list a sign, in the graph the line and a lock.
fn styles(browser: &mut Browser) -> Result<()> {
    let sign = |from, to, way| format!("{}.querySelector('.sign')", edge(from, to, way));
    let lock = "(it) => getComputedStyle(it, '::before').content !== 'none' && it.textContent === ''";
    for (from, to, way) in [("store/buyer", "store/item-v1", "waypoint"), ("shop/order-v1", "shop/payment-v1", "hbone")]
    {
        browser.wait("a lock", &format!("({lock})({})", sign(from, to, way)))?;
    }
    shows(browser, "shop/order-v1", "shop/notification-v1", "direct")?;
    let direct = sign("shop/order-v1", "shop/notification-v1", "direct");
    browser.wait("no lock at what no one encrypts", &format!("{direct}?.textContent === '⇉'"))?;
    only(browser, "item")?;
    browser.eval(SPY)?;
    browser.wait("a waypoint's line, and its lock", "meshDrawn.dashes.includes('14,4') && meshDrawn.locks > 0")?;
    only(browser, "notification")?;
    browser.eval("Object.assign(meshDrawn, { dashes: [], locks: 0 })")?;
    let drawn = "meshDrawn.dashes.length > 20 && !meshDrawn.dashes.includes('14,4') && meshDrawn.locks === 0";
    browser.wait("a direct edge without a lock", drawn)
}

fn only(browser: &mut Browser, words: &str) -> Result<()> {
    let find = "document.getElementById('find')";
    browser.eval(&format!("{find}.value = '{words}'; {find}.dispatchEvent(new Event('input'))"))?;
    let all =
        format!("[...document.querySelectorAll('#edges button')].every((it) => it.textContent.includes('{words}'))");
    browser.wait("those edges alone", &all)
}

/// Where two edges are, once the graph stands still.
const STILL: &str = "(async () => {
  const at = () => [meshMiddleOf('store/buyer', 'store/item-v1'), meshMiddleOf('store/buyer', 'store/item-v2')];
  for (let before = null, same = 0; same < 20; ) {
    const now = JSON.stringify(at());
    same = now === before ? same + 1 : 0;
    before = now;
    await new Promise(requestAnimationFrame);
  }
  return at();
})()";

fn keys_of_the_graph(browser: &mut Browser) -> Verdict {
    only(browser, "item-v")?;
    for server in ["store/item-v1", "store/item-v2"] {
        shows(browser, "store/buyer", server, "waypoint")?;
    }
    browser.eval("document.getElementById('graph').focus(); document.activeElement.id")?;
    let places = |browser: &mut Browser| -> Result<[f64; 4]> {
        let at = browser.eval(STILL)?;
        let number = |edge: usize, of: &str| at[edge][of].as_f64().context("no place");
        Ok([number(0, "x")?, number(0, "y")?, number(1, "x")?, number(1, "y")?])
    };
    let apart = |[x, y, other_x, other_y]: [f64; 4]| (x - other_x).hypot(y - other_y);
    let near = |one: f64, other: f64| (one - other).abs() < 1.0;
    browser.press("0")?;
    let fitted = places(browser)?;
    browser.press("ArrowRight")?;
    browser.press("ArrowDown")?;
    let moved = places(browser)?;
    assert!(near(moved[0], fitted[0] - 40.0) && near(moved[1], fitted[1] - 40.0), "{fitted:?} {moved:?}");
    browser.press("+")?;
    let larger = places(browser)?;
    assert!(near(apart(larger), 1.25 * apart(fitted)), "{fitted:?} {larger:?}");
    browser.press("-")?;
    browser.press("-")?;
    let smaller = places(browser)?;
    assert!(near(apart(smaller), 0.8 * apart(fitted)), "{fitted:?} {smaller:?}");
    browser.press("0")?;
    let again = places(browser)?;
    assert!(again.iter().zip(fitted).all(|(one, other)| near(*one, other)), "{fitted:?} {again:?}");
    Ok(())
}

fn generations(browser: &mut Browser, mesh: &Mesh) -> Verdict {
    browser.eval("document.getElementById('tab-nodes').click()")?;
    for node in NODES {
        let status = ctl_json(mesh, node, &["status"], 0)?;
        let config = &status["config"];
        let words =
            format!("{}: {} workloads, {} services", config["generation"], config["workloads"], config["services"]);
        let card = format!("(document.querySelector('[data-node={node}]')?.innerText ?? '')");
        browser.wait(&words, &format!("/Generation\\s+{words}/.test({card})"))?;
    }
    Ok(())
}

/// How often each path was asked for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, usize>>>);

impl Asked {
    fn counts(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(&self, path: &str) -> usize {
        self.counts().get(path).copied().unwrap_or(0)
    }

    /// Passes everything on to a daemon, and counts it.
    fn before(&self, daemon: PathBuf, socket: &Path) -> Result<()> {
        let (listener, asked) = (UnixListener::bind(socket).context("binding")?, self.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (asked, daemon) = (asked.clone(), daemon.clone());
                thread::spawn(move || asked.pass(client, &daemon));
            }
        });
        Ok(())
    }

    /// A connection carries one question.
    fn pass(&self, mut client: UnixStream, daemon: &Path) -> std::io::Result<()> {
        let mut head = [0; 4096];
        let read = client.read(&mut head)?;
        let target = String::from_utf8_lossy(&head[..read]).split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
        let mut server = UnixStream::connect(daemon)?;
        server.write_all(&head[..read])?;
        copy(&mut server, &mut client).map(drop)
    }
}

/// A viewer who reads on and on; gone when dropped.
struct Viewer(Child);

impl Viewer {
    fn of(page: &Page) -> Result<Self> {
        let (base, token) = page.parts()?;
        let (url, header) = (format!("{base}api/stream"), format!("authorization: Bearer {token}"));
        let mut curl = Command::new("curl");
        let mut process = curl.args(["-sN", "-H", &header, &url]).stdout(Stdio::piped()).spawn().context("curl")?;
        let mut told = BufReader::new(process.stdout.take().context("no output")?);
        let mut line = String::new();
        told.read_line(&mut line).context("reading")?;
        assert!(line.starts_with("event: "), "{line:?}");
        thread::spawn(move || copy(&mut told, &mut std::io::sink()));
        Ok(Self(process))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds between two questions.
const INTERVAL: f64 = 2.0;

#[test]
fn a_hundred_viewers_ask_a_daemon_no_more_than_one_does() -> Verdict {
    let mesh = Mesh::start()?;
    let dir = tempfile::tempdir().context("a folder")?;
    let sockets = NODES.map(|node| dir.path().join(node));
    let asked = NODES.map(|_| Asked::default());
    for ((node, socket), asked) in NODES.iter().zip(&sockets).zip(&asked) {
        asked.before(mesh.lab.admin_socket(node), socket)?;
    }
    mesh.settle()?;
    let page = Page::serve(&sockets, &[])?;
    let _viewers = (0..100).map(|_| Viewer::of(&page)).collect::<Result<Vec<_>>>()?;
    let (begun, before) = (Instant::now(), asked.each_ref().map(Asked::counts));
    wait_until("each daemon to be asked three times more", PATIENCE, || {
        let many = asked.iter().zip(&before).all(|(now, then)| now.of("/v1/status") >= then["/v1/status"] + 3);
        Ok(many.then_some(()))
    })?;
    let most = begun.elapsed().as_secs_f64() / INTERVAL + 1.0;
    for (now, then) in asked.iter().zip(&before) {
        for (path, count) in now.counts() {
            let more = count - then.get(&path).copied().unwrap_or(0);
            assert!(more as f64 <= most, "{path}: {more} times where {most} are enough");
        }
        // What goes on is told by one stream, and what is configured not again, since it stays as it is.
        assert_eq!(now.of("/v1/flows"), 1);
        for path in ["/v1/workloads", "/v1/policies"] {
            assert_eq!(Some(&now.of(path)), then.get(path), "{path}");
        }
    }
    Ok(())
}

/// The status that curl gets for a request by that name.
fn status(url: &str, host: &str, token: &str) -> Result<String> {
    let fields = [format!("host: {host}"), format!("authorization: Bearer {token}")];
    let output = Command::new("curl")
        .args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", &fields[0], "-H", &fields[1], url])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn elsewhere_than_at_loopback_the_page_answers_to_the_names_and_the_token_that_it_was_given() -> Verdict {
    let dir = tempfile::tempdir().context("a folder")?;
    let (file, token) = (dir.path().join("token"), "0123456789-0123456789");
    let place = file.display().to_string();
    let arguments = ["--listen", "0.0.0.0:0", "--host", "mesh.example", "--token-file", &*place];
    std::fs::write(&file, "short").context("writing")?;
    let refused = Command::new(mesh_lab::binary("mesh-ctl")?).arg("dashboard").args(arguments).output();
    let refused = refused.context("starting mesh-ctl")?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a token has 20 letters"), "{refused:?}");
    std::fs::write(&file, format!("{token}\n")).context("writing")?;
    let page = Page::serve_with(&["/nonexistent/admin.sock".into()], &[], &arguments)?;
    // Who reads the log does not read the token.
    assert!(!page.url().contains('#') && page.url().starts_with("http://0.0.0.0:"), "{}", page.url());
    let edge = format!("{}api/edge", page.url());
    for (host, expected) in
        [("mesh.example", "200"), ("MESH.example:8080", "200"), ("localhost", "200"), ("[::1]", "200")]
    {
        assert_eq!(status(&edge, host, token)?, expected, "{host}");
    }
    for host in ["other.example", "mesh.example.other", "0.0.0.0"] {
        assert_eq!(status(&edge, host, token)?, "403", "{host}");
    }
    assert_eq!(status(&edge, "mesh.example", "another-token-01234567")?, "401");
    Ok(())
}
