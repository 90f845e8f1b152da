//! `mesh-ctl dashboard` leads to Jaeger and Grafana, and takes the names that peers and manifests choose for text.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_e2e::{Browser, Page, Verdict};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// What no workload's label may be, but a daemon that lies may say, and a client's path may hold.
const HOSTILE: &str = "\"'><img src=x onerror=\"document.title='injected'\"></script><script>document.title='injected'</script>\u{202e}&from=1#\n%00";

fn flow(workload: &str, path: &str) -> Value {
    let party = |name: &str| json!({"namespace": "shop", "workload": name, "pod": name, "address": "10.0.0.1:80"});
    json!({
        "atMilliseconds": 1, "event": "request", "id": 1, "reporter": "waypoint", "security": "mutual_tls",
        "source": party(workload), "destination": party("cart-v1"), "service": "cart.shop.svc.cluster.local",
        "bytesFromClient": 0, "bytesToClient": 0, "policy": path,
        "request": {
            "protocol": "http", "status": 403, "flags": "RBAC", "durationMicroseconds": 1000, "method": path, "path": path,
            "url": format!("http://cart.shop{path}"), "traceId": TRACE,
        },
    })
}

/// Stands in for a daemon that tells of a request of each of these workloads, again and again.
fn daemon(workloads: &'static [&'static str]) -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().context("a folder")?;
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).context("binding")?;
    let answer = move |mut stream: UnixStream| -> std::io::Result<()> {
        let mut head = [0; 4096];
        let read = stream.read(&mut head)?;
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        if !head[..read].starts_with(b"GET /v1/flows") {
            return write!(stream, "{}", json!({"items": [], "total": 0, "generation": 1, "services": []}));
        }
        loop {
            for workload in workloads {
                let path = if workload.contains('<') { HOSTILE } else { "/items" };
                writeln!(stream, "{}", flow(workload, path))?;
            }
            thread::sleep(Duration::from_millis(500));
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok((dir, socket))
}

/// The first link of an edge's details whose text has these words: where it leads, taken apart by the browser.
fn link(browser: &mut Browser, words: &str) -> Result<Value> {
    let found =
        format!("[...document.querySelectorAll('#details a')].find((it) => it.textContent.includes({}))", json!(words));
    browser.wait(words, &format!("{found} !== undefined"))?;
    browser.eval(&format!(
        "(() => {{ const it = {found}, url = new URL(it.href); \
         return {{ at: url.origin + url.pathname, rel: it.rel, hash: url.hash, ...Object.fromEntries(url.searchParams) }} }})()"
    ))
}

fn open_edge(browser: &mut Browser, words: &str) -> Result<()> {
    let button = format!(
        "[...document.querySelectorAll('#edges button')].find((it) => it.textContent.includes({}))",
        json!(words)
    );
    browser.wait(words, &format!("{button} !== undefined"))?;
    browser.eval(&format!("{button}.click()")).map(drop)
}

#[test]
fn an_edge_leads_to_its_traces_and_dashboards_and_an_error_to_its_trace() -> Verdict {
    let (_dir, socket) = daemon(&["frontend-v1"])?;
    let arguments = ["--jaeger-url", "http://jaeger.example/jaeger/", "--grafana-url", "https://grafana.example"];
    let page = Page::serve_with(std::slice::from_ref(&socket), &[], &arguments)?;
    let mut browser = Browser::start(1280, 800)?;
    browser.open(page.url())?;
    open_edge(&mut browser, "frontend-v1")?;
    let traces = link(&mut browser, "Traces in Jaeger")?;
    let tags: Value = serde_json::from_str(traces["tags"].as_str().context("tags")?).context("tags")?;
    let expected = json!({
        "mesh.client.namespace": "shop", "mesh.client.workload": "frontend-v1",
        "mesh.server.service": "cart.shop.svc.cluster.local",
    });
    assert_eq!((&traces["at"], tags), (&"http://jaeger.example/jaeger/search".into(), expected), "{traces}");
    assert_eq!((&traces["service"], &traces["rel"]), (&"mesh-node".into(), &"noopener noreferrer".into()), "{traces}");
    assert_eq!(link(&mut browser, "Trace")?["rel"], "noopener noreferrer");
    let trace = format!(
        "document.querySelector('#details .troubles a[href=\"http://jaeger.example/jaeger/trace/{TRACE}\"]') !== null"
    );
    browser.wait("the error's trace", &trace)?;
    let board = link(&mut browser, "Service cart")?;
    assert_eq!(board["at"], "https://grafana.example/d/mesh-service", "{board}");
    assert_eq!((&board["var-namespace"], &board["var-service"]), (&"shop".into(), &"cart".into()), "{board}");
    let board = link(&mut browser, "workload frontend-v1")?;
    assert_eq!(board["at"], "https://grafana.example/d/mesh-workload", "{board}");
    assert_eq!((&board["var-namespace"], &board["var-workload"]), (&"shop".into(), &"frontend-v1".into()), "{board}");

    let without = Page::serve(&[socket], &[])?;
    browser.open(without.url())?;
    open_edge(&mut browser, "frontend-v1")?;
    browser.wait("its errors", "document.querySelector('#details .troubles li') !== null")?;
    assert_eq!(browser.eval("document.querySelectorAll('#details a').length")?, 0, "nobody has said where they are");
    Ok(())
}

#[test]
fn hostile_names_stay_text_on_the_page_and_values_in_links() -> Verdict {
    let (_dir, socket) = daemon(&[HOSTILE])?;
    let arguments = ["--jaeger-url", "http://jaeger.example", "--grafana-url", "https://grafana.example"];
    let page = Page::serve_with(&[socket], &[], &arguments)?;
    let mut browser = Browser::start(1280, 800)?;
    browser.open(page.url())?;
    open_edge(&mut browser, "<img src=x onerror=")?;
    let board = link(&mut browser, "workload ")?;
    assert_eq!(
        (&board["var-workload"], &board["from"], &board["hash"]),
        (&HOSTILE.into(), &"now-1h".into(), &"".into()),
        "{board}"
    );
    let traces = link(&mut browser, "Traces in Jaeger")?;
    let tags: Value = serde_json::from_str(traces["tags"].as_str().context("tags")?).context("tags")?;
    assert_eq!(
        (&tags["mesh.client.workload"], &traces["at"]),
        (&HOSTILE.into(), &"http://jaeger.example/search".into())
    );
    browser.wait("the error's text", "document.getElementById('details').innerText.includes('onerror=')")?;
    for tab in ["tab-services", "tab-nodes", "tab-strict", "tab-graph"] {
        browser.eval(&format!("document.getElementById('{tab}').click()"))?;
    }
    assert_eq!(browser.eval("document.title")?, "Mesh");
    assert_eq!(browser.eval("document.querySelectorAll('body img, body script').length")?, 0);
    Ok(())
}
